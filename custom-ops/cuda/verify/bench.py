"""Speeds of the kernels, beside PyTorch's own products in the same run.

A case runs over enough copies of its operands that none is left in the L2 cache when its turn comes again. The calls
are captured in a CUDA graph, which shows that they can be, and leaves the host out; what counts is the median of
replays between events. Results are kept after every measurement; a case that does not end takes its process along.
"""

import os
import statistics
import threading

import torch

from kernels import Product
from library import (
    ActivationArgs,
    Element,
    Format,
    Kernel,
    QuantizeWeightArgs,
    Rule,
    VerifyError,
    ceil_div,
    code_bytes,
    round_up,
    scale_count,
)
from operands import Buffer

# (bytes a second, e4m3 and bfloat16 operations a second), dense, by the vendor's datasheets of the SXM parts.
LIMITS = {"H200": (4.8e12, 1979e12, 989e12), "H100": (3.35e12, 1979e12, 989e12)}
COLD_CACHES = 4  # times the L2 cache that the copies fill
MOST_COPIES = 64
LEAST_CALLS = 20
REPLAYS = 9
HANGING_SECONDS = 60  # of one case


class Operands:
    """Operands of a product without a reference."""

    def __init__(self, case):
        tokens, n, k = self.shape = case.tokens, case.n, case.k
        is_fp8 = "fp8" in case.kind
        self.group_n, self.group_k = 1, 128 if "groups" in case.kind else 0
        self.x_stride = round_up(k, 16)
        if is_fp8:
            self.format, self.static_scale = Format.E4M3, 1.0
            self.rule = Rule.E4M3_GROUP128 if case.kind == "block fp8" else Rule.E4M3_TOKEN
            if case.kind == "block fp8":
                self.group_n, self.group_k = 128, 128
            self.scale_stride = round_up(tokens, 4)
            groups = ceil_div(k, 128) if case.kind == "block fp8" else 1
            self.x = _random_codes(Format.E4M3, tokens * self.x_stride)
            self.x_scales = _scales(groups * self.scale_stride)
        else:
            self.format = Format.INT4 if "int4" in case.kind else Format.INT8
            self.element = Element.BFLOAT16
            self.x = Buffer("cuda", tokens * self.x_stride * 2)
            self.x.view(torch.bfloat16, (tokens, self.x_stride)).normal_()
        self.w = _random_codes(self.format, code_bytes(self.format, n, k))
        self.w_scales = _scales(scale_count(n, k, self.group_n, self.group_k))


def _random_codes(fmt, size):
    """Bytes of codes as weights and activations have them: what a product draws in power depends on its data."""
    buffer = Buffer("cuda", size)
    if fmt == Format.INT4:
        buffer.bytes.random_(0, 256)
    elif fmt == Format.INT8:
        buffer.view(torch.int8, (size,)).copy_((torch.randn(size, device="cuda") * 32).clamp(-127, 127))
    else:
        buffer.view(torch.float8_e4m3fn, (size,)).copy_(torch.randn(size, device="cuda"))
    return buffer


def _scales(count):
    buffer = Buffer("cuda", count * 4)
    buffer.view(torch.float32, (count,)).uniform_(0.01, 0.02)
    return buffer


def _limits(name):
    for model, limits in LIMITS.items():
        if model in name:
            return limits
    return None


def _microseconds(calls):
    """The median time of one call; `calls` are run one after the other."""
    repeats = ceil_div(LEAST_CALLS, len(calls))
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            for call in calls:
                call()
    graph.replay()
    times = []
    for _ in range(REPLAYS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1000 / (repeats * len(calls)))
    return statistics.median(times)


def _copies(bytes_of_one):
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(2, min(MOST_COPIES, ceil_div(COLD_CACHES * cache, max(bytes_of_one, 1))))


def _product_calls(device, case):
    """Calls, bytes that one moves, and its operations."""
    x_bytes = case.tokens * case.k * (1 if "fp8" in case.kind else 2)
    moved = case.weight_bytes + x_bytes + case.tokens * case.n * 2
    first = Operands(case)
    moved += 4 * scale_count(case.n, case.k, first.group_n, first.group_k)
    operands = [first] + [Operands(case) for _ in range(_copies(moved) - 1)]
    products = [Product(device, each, Kernel.AUTO, Element.BFLOAT16) for each in operands]
    return [product.run for product in products], moved, 2 * case.tokens * case.n * case.k


def _activation_calls(device, case):
    tokens, k = case.tokens, case.k
    stride, moved = round_up(tokens, 4), tokens * k * 3 + tokens * ceil_div(k, 128) * 4

    def make():
        x, codes = Buffer("cuda", tokens * k * 2), Buffer("cuda", tokens * k)
        x.view(torch.bfloat16, (tokens, k)).normal_()
        scales = Buffer("cuda", ceil_div(k, 128) * stride * 4)
        args = ActivationArgs(
            *(x.pointer, Element.BFLOAT16, tokens, k, k, Rule.E4M3_GROUP128, 1.0),
            *(codes.pointer, k, scales.pointer, stride),
        )
        keep = (x, codes, scales)
        return lambda: keep and device.call("quantize_activations", args)

    return [make() for _ in range(_copies(moved))], moved, 0


def _weight_calls(device, case):
    n, k = case.n, case.k
    moved = n * k * 3

    def make():
        source, codes = Buffer("cuda", n * k * 2), Buffer("cuda", n * k)
        source.view(torch.bfloat16, (n, k)).normal_()
        scales, first = Buffer("cuda", scale_count(n, k, 128, 128) * 4), Buffer("cuda", 8, fill=0xFF)
        args = QuantizeWeightArgs(
            *(source.pointer, Element.BFLOAT16, Format.E4M3, n, k, 128, 128),
            *(codes.pointer, scales.pointer, first.pointer),
        )
        keep = (source, codes, scales, first)
        return lambda: keep and device.call("quantize_weight", args)

    return [make() for _ in range(_copies(moved))], moved, 0


def _bfloat16_microseconds(case):
    moved = 2 * (case.n * case.k + case.tokens * case.k)
    pairs = [
        (
            torch.randn(case.tokens, case.k, device="cuda", dtype=torch.bfloat16),
            torch.randn(case.n, case.k, device="cuda", dtype=torch.bfloat16),
        )
        for _ in range(_copies(moved))
    ]
    return _microseconds([lambda x=x, w=w: torch.matmul(x, w.t()) for x, w in pairs])


def _scaled_mm_microseconds(case):
    """
    PyTorch's product of e4m3 with the same scales, without fast accumulation: [m, k] and [k, n] by columns, with
    scales [m, 1] and [1, n], or [m, k / 128] and [k / 128, n / 128], both of these by columns. Raises RuntimeError or
    ValueError where it has none (scales of tiles need CUDA 12.9 and Hopper).
    """
    is_block = case.kind == "block fp8"
    groups, rows = ceil_div(case.k, 128), ceil_div(case.n, 128)

    def make():
        x = torch.randn(case.tokens, case.k, device="cuda").to(torch.float8_e4m3fn)
        w = torch.randn(case.n, case.k, device="cuda").to(torch.float8_e4m3fn)
        if is_block:
            a = torch.rand(groups, case.tokens, device="cuda").t()
            b = torch.rand(rows, groups, device="cuda").t()
        else:
            a = torch.rand(case.tokens, 1, device="cuda")
            b = torch.rand(1, case.n, device="cuda")
        return lambda: torch._scaled_mm(x, w.t(), scale_a=a, scale_b=b, out_dtype=torch.bfloat16)

    return _microseconds([make() for _ in range(_copies(case.n * case.k + case.tokens * case.k))])


def _measure_own(device, case, limits):
    make = {"activations": _activation_calls, "weights": _weight_calls}.get(case.kind, _product_calls)
    calls, moved, operations = make(device, case)
    time_us = _microseconds(calls)
    row = {"microseconds": time_us, "gigabytesPerSecond": moved / time_us / 1e3}
    row["teraflops"] = operations / time_us / 1e6
    if limits is not None:
        bandwidth, fp8, bfloat16 = limits
        row["bandwidthShare"] = moved / (time_us * 1e-6) / bandwidth
        row["computeShare"] = operations / (time_us * 1e-6) / (fp8 if "fp8" in case.kind else bfloat16)
    return row


def _measure(device, case, limits, results):
    """One after the other, each on its own: what one cannot do is no reason to lose the others."""
    row = {"case": case.describe(), "kind": case.kind, "tokens": case.tokens, "n": case.n, "k": case.k}
    measurements = [("error", lambda: _measure_own(device, case, limits))]
    if case.n > 0 and case.kind != "weights":
        measurements.append(("bfloat16Error", lambda: {"bfloat16Microseconds": _bfloat16_microseconds(case)}))
    if "fp8" in case.kind:
        measurements.append(("scaledMmError", lambda: {"scaledMmMicroseconds": _scaled_mm_microseconds(case)}))
    for name, measurement in measurements:
        try:
            row |= measurement()
        except (VerifyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            row[name] = str(error).split("\n", maxsplit=1)[0]
            if _is_device_lost():
                return row, True
        row |= _judge(case, row)
        results.update(row)
        torch.cuda.empty_cache()
    return row, False


def _is_device_lost():
    """After some errors no further call of the process succeeds."""
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device="cuda").cpu()
    except RuntimeError:
        return True
    return False


def _judge(case, row):
    """Whether the case reaches its bar; block fp8 of many tokens is also held against bfloat16."""
    bar = case.bar()
    if bar is None:
        return {}
    kind, least = bar
    reached = row.get("teraflops" if kind == "TFLOPS" else "bandwidthShare")
    if reached is None:
        return {"bar": bar}
    if reached < least or kind == "bandwidth":
        return {"bar": bar, "isMet": reached >= least}
    if "bfloat16Microseconds" not in row:
        return {"bar": bar}
    return {"bar": bar, "isMet": row["microseconds"] <= row["bfloat16Microseconds"]}


def measure(device, cases, results, clock):
    """Measures the cases that have no row yet. Returns whether the device was lost: a new process has to go on."""
    limits = _limits(torch.cuda.get_device_name())
    for case in cases:
        if results.has(case):
            continue
        if clock.left() <= 0:
            break
        results.begin(case)
        watch = threading.Timer(HANGING_SECONDS, _report_hanging, (case.describe(),))
        watch.daemon = True
        watch.start()
        row, is_lost = _measure(device, case, limits, results)
        watch.cancel()
        results.finish(row)
        print(_line(row), flush=True)
        if is_lost:
            return True
    return False


def _report_hanging(name):
    """A kernel that does not end cannot be stopped from within its process."""
    print(f"{name}: no end after {HANGING_SECONDS} s", flush=True)
    os._exit(1)


def _line(row):
    if "error" in row:
        return f"{row['case']}: {row['error']}"
    speeds = f"{row['gigabytesPerSecond']:.0f} GB/s, {row['teraflops']:.0f} TFLOPS"
    return f"{row['case']}: {row['microseconds']:.1f} us, {speeds}"

