"""Buffers with guard zones, and random operands for the kernels."""

import math

import torch

from library import Element, Format, Rule, ceil_div, code_bytes, round_up, scale_count

POISON = 0xCD

DTYPES = {Element.FLOAT32: torch.float32, Element.FLOAT16: torch.float16, Element.BFLOAT16: torch.bfloat16}


class Buffer:
    """`size` bytes on a device, filled with `fill`, between two zones that must stay as they are."""

    guard_bytes = 1024

    def __init__(self, device, size, fill=POISON):
        guard = self.guard_bytes
        self._all = torch.full((size + 2 * guard,), POISON, dtype=torch.uint8, device=device)
        self.bytes = self._all[guard : guard + size]
        self.bytes.fill_(fill)

    @property
    def pointer(self):
        return self.bytes.data_ptr()

    def view(self, dtype, shape):
        count = math.prod(shape)
        return self.bytes[: count * dtype.itemsize].view(dtype).view(shape)

    def is_guarded(self):
        guard = (len(self._all) - len(self.bytes)) // 2
        head, tail = self._all[:guard], self._all[len(self._all) - guard :]
        return bool((head == POISON).all()) and bool((tail == POISON).all())


class Draw:
    """Random shapes and values from one seed; values are made on the host so that every device gets the same."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def below(self, count):
        return int(torch.randint(count, (1,), generator=self.generator))

    def choose(self, items):
        return items[self.below(len(items))]

    def size(self, largest):
        """1 .. largest, small and large ones alike."""
        exponent = torch.rand(1, generator=self.generator).item() * math.log(largest)
        return max(1, min(largest, round(math.exp(exponent))))

    def values(self, shape, dtype):
        """Like rows of weights or activations: normal, with outliers, a row of zeros and one of tiny values."""
        x = torch.randn(shape, generator=self.generator)
        outliers = torch.rand(shape, generator=self.generator) < 0.002
        x = torch.where(outliers, x * 40, x)
        if shape[0] > 4:
            x[self.below(shape[0])] = 0
            x[self.below(shape[0])] *= 1e-6
        return x.to(dtype)

    def positive(self, shape):
        """Scales: between 2^-9 and 2^-3."""
        return torch.exp2(torch.rand(shape, generator=self.generator) * 6 - 9)


class Fp8Operands:
    """x and W in e4m3 with their scales; `x_value` and `w_value` are what they mean, in float64."""

    def __init__(self, draw, device, shape, rule):
        tokens, n, k = shape
        self.shape, self.rule = shape, rule
        self.x_stride = round_up(k, 16) + 16 * draw.below(2)
        self.scale_stride = round_up(tokens, 4) + 4 * draw.below(2)
        self.x, x = self._codes(draw, device, (tokens, k), tokens * self.x_stride, self.x_stride)
        padded = round_up(k, 64)
        self.w, w = self._codes(draw, device, (n, k), code_bytes(Format.E4M3, n, k), padded)
        self.static_scale = 0.037
        if rule == Rule.E4M3_GROUP128:
            self.group_n, self.group_k = 128, 128
            groups = ceil_div(k, 128)
            x_scales, w_scales = draw.positive((groups, tokens)), draw.positive((ceil_div(n, 128), groups))
            self.x_scales = Buffer(device, groups * self.scale_stride * 4, fill=0xFF)  # NaN beyond the tokens
            self.x_scales.view(torch.float32, (groups, self.scale_stride))[:, :tokens] = x_scales.to(device)
            self.w_scales = Buffer(device, w_scales.numel() * 4)
            self.w_scales.view(torch.float32, w_scales.shape).copy_(w_scales)
            self.x_scale_of = x_scales.t()  # [tokens, groups]
            self.w_scale_of = w_scales.repeat_interleave(128, 0)[:n]  # [n, groups]
        else:
            self.group_n, self.group_k = 1, 0
            x_scales = draw.positive((tokens,))
            w_scales = torch.ones(round_up(n, 16))
            w_scales[:n] = draw.positive((n,))
            self.x_scales, self.w_scales = Buffer(device, tokens * 4), Buffer(device, w_scales.numel() * 4)
            self.x_scales.view(torch.float32, (tokens,)).copy_(x_scales)
            self.w_scales.view(torch.float32, w_scales.shape).copy_(w_scales)
            used = torch.full((tokens,), self.static_scale) if rule == Rule.E4M3_STATIC else x_scales
            self.x_scale_of, self.w_scale_of = used[:, None], w_scales[:n, None]
        self.x_value, self.w_value = x.to(torch.float64), w.to(torch.float64)

    @staticmethod
    def _codes(draw, device, shape, size, stride):
        values = draw.values(shape, torch.float32) * 20
        codes = values.clamp(-448, 448).to(torch.float8_e4m3fn)
        buffer = Buffer(device, size, fill=0)
        buffer.view(torch.uint8, (size // stride, stride))[: shape[0], : shape[1]] = codes.view(torch.uint8).to(device)
        return buffer, codes.to(torch.float32)


class IntegerOperands:
    """x in float16 or bfloat16 and W in int8 or int4, quantized by the oracle, with or without zero points."""

    def __init__(self, draw, device, shape, fmt, element, oracle):
        tokens, n, k = shape
        self.shape, self.format, self.element = shape, fmt, element
        self.group_n, self.group_k = 1, draw.choose([0, 32, 64, 96, 128, 192, 256])
        self.x_stride = draw.choose([k, round_up(k, 8), round_up(k, 8) + 24])
        dtype = DTYPES[element]
        x = draw.values((tokens, k), dtype)
        self.x = Buffer(device, tokens * self.x_stride * 2, fill=0xFF)  # NaN beyond k
        self.x.view(dtype, (tokens, self.x_stride))[:, :k] = x.to(device)
        source = draw.values((n, k), torch.bfloat16).contiguous()
        count = scale_count(n, k, 1, self.group_k)
        codes, scales = torch.empty(code_bytes(fmt, n, k), dtype=torch.uint8), torch.empty(count)
        oracle.quantize_weight(
            *(source.data_ptr(), Element.BFLOAT16, fmt, n, k, 1, self.group_k),
            *(codes.data_ptr(), scales.data_ptr(), count),
        )
        self.w, self.w_scales = Buffer(device, codes.numel()), Buffer(device, count * 4)
        self.w.bytes.copy_(codes)
        self.w_scales.view(torch.float32, (count,)).copy_(scales)
        self.zero_points = None
        zeros = torch.zeros(count, dtype=torch.int8)
        if fmt == Format.INT4 and draw.below(2) == 1:
            zeros = torch.randint(-8, 9, (count,), generator=draw.generator, dtype=torch.int8)
            self.zero_points = Buffer(device, count)
            self.zero_points.view(torch.int8, (count,)).copy_(zeros)
        self.x_value = x.to(torch.float64)
        self.w_value = self._dequantize(source, scales, zeros, n, k)

    def _dequantize(self, source, scales, zeros, n, k):
        """From the source, not from the codes' bytes, whose order is what the kernels are tested for."""
        groups = 1 if self.group_k == 0 else ceil_div(k, self.group_k)
        width = k if self.group_k == 0 else self.group_k

        def spread(values):
            rows = values.view(-1, groups, 16).transpose(1, 2).reshape(-1, groups)[:n]
            return rows.repeat_interleave(width, 1)[:, :k]

        largest = 7 if self.format == Format.INT4 else 127
        scale = spread(scales)
        codes = torch.round(source.to(torch.float32) / scale).clamp(-largest, largest)
        return (codes.to(torch.float64) - spread(zeros).to(torch.float64)) * scale.to(torch.float64)
