"""Every kernel against the oracle's bytes, or against float64 within the error that its arithmetic may make."""

import os
import threading
import time
from dataclasses import dataclass

import torch

from kernels import HOPPER, Product
from library import (
    ActivationArgs,
    ConvertArgs,
    Element,
    Format,
    Kernel,
    QuantizeWeightArgs,
    RepackArgs,
    Rule,
    VerifyError,
    ceil_div,
    code_bytes,
    round_up,
    scale_count,
)
from operands import DTYPES, POISON, Buffer, Draw, Fp8Operands, IntegerOperands

OUTPUTS = [Element.BFLOAT16, Element.FLOAT16, Element.FLOAT32]
FP8_RULES = [Rule.E4M3_GROUP128, Rule.E4M3_TOKEN, Rule.E4M3_STATIC]
GEOMETRIES = [
    *[(Format.INT8, 1, group) for group in (0, 32, 128)],
    *[(Format.INT4, 1, group) for group in (0, 32, 64, 96, 128, 256)],
    *[(Format.E4M3, 1, 0), (Format.E4M3, 128, 128), (Format.E4M3, 0, 0)],
]
# Half a unit in the last place, relative.
ROUNDING = {Element.BFLOAT16: 2.0**-8, Element.FLOAT16: 2.0**-11, Element.FLOAT32: 2.0**-24}
# The accumulators of Hopper's e4m3 products keep 13 bits behind the leading one, and cut terms off there.
NARROW = 2.0**-13
NARROW_STEPS = 4  # products of 32 k between promotions to float32
NARROW_TERMS = 33  # 32 and what was summed before
# Of the root mean square, where the bound of each element is far from what random errors add up to.
NARROW_RMS = 3e-3
WIDE_RMS = 2e-5
HANGING_EXIT = 6
MOST_FAILURES = 8  # of a check: more tell nothing new
MOST_LARGE = 12  # cases of large products
FEW_TOKENS = 32  # that every streaming kernel takes


class Failure(Exception):
    """A kernel did what it must not."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def _expect_equal(what, got, expected):
    got, expected = got.flatten(), expected.flatten()
    if torch.equal(got, expected):
        return
    wrong = (got != expected).nonzero().flatten()
    at = int(wrong[0])
    raise Failure(f"{len(wrong)} of {len(got)} {what} differ, the first at {at}: {got[at]}, not {expected[at]}")


def _largest_of_groups(matrix, width):
    rows, k = matrix.shape
    padded = torch.nn.functional.pad(matrix.abs(), (0, -k % width))
    return padded.view(rows, -1, width).amax(2)


def _error_bound(operands, output, is_narrow):
    """(value, bound) of each element in float64, by (tokens, n)."""
    x, w = operands.x_value, operands.w_value
    k = operands.shape[2]
    if not hasattr(operands, "rule"):
        value, magnitude = x @ w.t(), x.abs() @ w.abs().t()
        # Tensor cores cut terms off below the last bit of the largest: twice the error of rounding.
        return value, magnitude * (2 * k + 64) * 2.0**-24
    width = 128
    groups = ceil_div(k, width)
    x_scale, w_scale = operands.x_scale_of.double(), operands.w_scale_of.double()
    if x_scale.shape[1] == 1:
        x_scale, w_scale = x_scale.expand(-1, groups), w_scale.expand(-1, groups)
    x = x * x_scale.repeat_interleave(width, 1)[:, :k]
    w = w * w_scale.repeat_interleave(width, 1)[:, :k]
    value, magnitude = x @ w.t(), x.abs() @ w.abs().t()
    bound = magnitude * (128 + groups + 8) * 2.0**-24
    if is_narrow:
        terms = _largest_of_groups(x, width) @ _largest_of_groups(w, width).t()
        bound = bound + NARROW_STEPS * NARROW * (NARROW_TERMS * terms + magnitude)
    return value, bound


def _check_product(device, draw, operands, kernel, output):
    """Returns the error's root mean square, relative to the values'."""
    tokens, n, _ = operands.shape
    bias = draw.positive((n,)) if draw.below(2) == 1 else None
    on_device = None if bias is None else bias.to(device.name)
    product = Product(device, operands, kernel, output, on_device, y_padding=draw.below(9))
    product.run()
    y = product.result()
    expect(product.are_guards_intact(), "memory around the output or the workspace was written")
    padding = y[:, n:].contiguous().view(torch.uint8)
    expect(bool((padding == POISON).all()), "the output's padding was written")
    is_narrow = device.info.major == HOPPER and hasattr(operands, "rule") and kernel != Kernel.MMA
    value, bound = _error_bound(operands, output, is_narrow and not device.is_emulated)
    if bias is not None:
        value = value + bias.double()
        bound = bound + bias.abs().double() * 2.0**-22
    got = y[:, :n].double()
    bound = bound + value.abs() * ROUNDING[output] * 1.01 + 2.0**-24
    error = (got - value).abs()
    wrong = (~(error <= bound)).nonzero()
    if len(wrong) > 0:
        t, r = (int(i) for i in wrong[0])
        raise Failure(
            f"{len(wrong)} of {got.numel()} elements are off, the first y[{t}, {r}]: {got[t, r]:.9g}, "
            f"not {value[t, r]:.9g} +- {bound[t, r]:.3g}"
        )
    rms = float(error.pow(2).mean().sqrt() / value.pow(2).mean().sqrt().clamp_min(1e-30))
    limit = ROUNDING[output] + (NARROW_RMS if is_narrow else WIDE_RMS)
    expect(value.abs().max() == 0 or rms <= limit, f"the error is {rms:.2e} of the values, more than {limit:.2e}")
    product.run()
    _expect_equal("elements of a second run", product.result().view(torch.uint8), y.view(torch.uint8))
    return rms


def check_fp8_linear(device, _oracle, draw, limits):
    tokens, shape = draw.size(limits.tokens), (draw.size(limits.rows), draw.size(limits.columns))
    rule, output = draw.choose(FP8_RULES), draw.choose(OUTPUTS)
    kernel = draw.choose(device.fp8_kernels(tokens))
    operands = Fp8Operands(draw, device.name, (tokens, *shape), rule)
    yield f"{tokens} x {shape[0]} x {shape[1]}, {rule.name}, {output.name}, {kernel.name}"
    yield _check_product(device, draw, operands, kernel, output)


def check_weight_only_linear(device, oracle, draw, limits):
    shape = (draw.size(limits.tokens), draw.size(limits.rows), draw.size(limits.columns))
    fmt, element = draw.choose([Format.INT8, Format.INT4]), draw.choose([Element.BFLOAT16, Element.FLOAT16])
    output = draw.choose(OUTPUTS)
    operands = IntegerOperands(draw, device.name, shape, fmt, element, oracle)
    kernel = draw.choose(device.weight_only_kernels(operands))
    zeros = "" if operands.zero_points is None else ", zero points"
    yield (
        f"{shape[0]} x {shape[1]} x {shape[2]}, {fmt.name}, groups of {operands.group_k}{zeros}, "
        f"{element.name} to {output.name}, {kernel.name}"
    )
    yield _check_product(device, draw, operands, kernel, output)


def check_large_products(device, oracle, draw, limits):
    """More tiles than multiprocessors, by the kernels that many tokens choose."""
    shape = draw.choose(limits.large)
    if draw.below(2) == 0:
        rule = draw.choose(FP8_RULES)
        operands = Fp8Operands(draw, device.name, shape, rule)
        name = rule.name
    else:
        fmt = draw.choose([Format.INT8, Format.INT4])
        operands = IntegerOperands(draw, device.name, shape, fmt, Element.BFLOAT16, oracle)
        name = fmt.name
    yield f"{shape[0]} x {shape[1]} x {shape[2]}, {name}"
    yield _check_product(device, draw, operands, Kernel.AUTO, Element.BFLOAT16)


def check_batch_invariance(device, oracle, draw, limits):
    """The first token's bits with all others and alone, by one kernel."""
    tokens, n, k = min(limits.tokens, FEW_TOKENS), draw.size(limits.rows), draw.size(limits.columns)
    if draw.below(2) == 0:
        name, kernel = "fp8", Kernel.STREAMING
        operands = Fp8Operands(draw, device.name, (tokens, n, k), draw.choose(FP8_RULES))
    else:
        name = "integers"
        fmt = draw.choose([Format.INT8, Format.INT4])
        operands = IntegerOperands(draw, device.name, (tokens, n, k), fmt, Element.BFLOAT16, oracle)
        kernel = draw.choose(device.weight_only_kernels(operands)[1:])
    yield f"{tokens} and 1 x {n} x {k}, {name}, {kernel.name}"
    all_tokens = Product(device, operands, kernel, Element.FLOAT32)
    all_tokens.run()
    operands.shape = (1, n, k)
    alone = Product(device, operands, kernel, Element.FLOAT32)
    alone.run()
    _expect_equal("elements", alone.result()[0], all_tokens.result()[0])
    yield 0.0


def check_activations(device, oracle, draw, limits):
    tokens, k = draw.size(limits.tokens), draw.size(limits.columns)
    rule, element = draw.choose(list(Rule)), draw.choose(list(Element))
    stride, offset = draw.choose([k, round_up(k, 8) + 8]), draw.below(2)
    code_stride = round_up(k, 16) + 16 * draw.below(3)
    yield f"{tokens} x {k}, {rule.name}, {element.name}, stride {stride}, offset {offset}"
    dtype = DTYPES[element]
    values = draw.values((tokens, k), torch.float32)
    ties = torch.randint(-896, 897, (k,), generator=draw.generator) / 8
    values[0] = torch.where(torch.arange(k) % 128 == 0, torch.tensor(448.0), ties)
    values = values.to(dtype).contiguous()
    x = Buffer(device.name, (tokens * stride + offset) * dtype.itemsize, fill=0xFF)
    rows = x.view(dtype, (tokens * stride + offset,))[offset:].view(tokens, stride)
    rows[:, :k] = values.to(device.name)
    is_grouped, is_static = rule == Rule.E4M3_GROUP128, rule in (Rule.E4M3_STATIC, Rule.INT8_STATIC)
    run = 128 if is_grouped else k
    groups, scale_stride = ceil_div(k, run), round_up(tokens, 4) + 4 * draw.below(2)
    codes, scales = Buffer(device.name, tokens * code_stride), Buffer(device.name, groups * scale_stride * 4)
    static = 0.0123
    device.call(
        "quantize_activations",
        ActivationArgs(
            *(x.pointer + dtype.itemsize * offset, element, tokens, k, stride, rule, static),
            *(codes.pointer, code_stride, scales.pointer, scale_stride),
        ),
    )
    device.synchronize()
    expected = torch.zeros((tokens, code_stride), dtype=torch.uint8)
    wanted = torch.empty((groups, tokens))
    is_int8 = int(rule in (Rule.INT8_TOKEN, Rule.INT8_STATIC))
    for token in range(tokens):
        for group in range(groups):
            start = group * run
            count = min(run, k - start)
            wanted[group, token] = oracle.quantize_run(
                *(values[token, start:].data_ptr(), element, count, is_int8, static if is_static else 0.0),
                expected[token, start:].data_ptr(),
            )
    _expect_equal("codes", codes.view(torch.uint8, (tokens, code_stride)).cpu(), expected)
    expect(codes.is_guarded() and scales.is_guarded(), "memory around the codes or scales was written")
    if not is_static:
        got = scales.view(torch.float32, (groups, scale_stride)).cpu()[:, :tokens]
        _expect_equal("scales", got.contiguous().view(torch.int32), wanted.view(torch.int32))
    yield 0.0


def check_conversion(device, oracle, draw, limits):
    tokens, k = draw.size(limits.tokens), draw.size(limits.columns)
    element = draw.choose([Element.BFLOAT16, Element.FLOAT16])
    x_stride, y_stride = k + draw.below(9), round_up(k, 8) + 8 * draw.below(2)
    yield f"{tokens} x {k}, {element.name}, strides {x_stride} and {y_stride}"
    x = Buffer(device.name, tokens * x_stride * 4, fill=0xFF)
    values = draw.values((tokens, k), torch.float32)
    x.view(torch.float32, (tokens, x_stride))[:, :k] = values.to(device.name)
    y = Buffer(device.name, tokens * y_stride * 2)
    args = ConvertArgs(x.pointer, tokens, k, x_stride, y.pointer, element, y_stride)
    device.call("convert_activations", args)
    device.synchronize()
    expected = torch.zeros((tokens, y_stride), dtype=DTYPES[element])
    expected[:, :k] = values.to(DTYPES[element])
    _expect_equal("values", y.view(torch.int16, (tokens, y_stride)).cpu(), expected.view(torch.int16))
    expect(y.is_guarded(), "memory around the output was written")
    yield 0.0


def check_weights(device, oracle, draw, limits):
    fmt, group_n, group_k = draw.choose(GEOMETRIES)
    n, k = draw.size(limits.rows), draw.size(limits.columns)
    element, is_bad = draw.choose(list(Element)), draw.below(5) == 0
    yield f"{n} x {k}, {fmt.name}, scales {group_n} x {group_k}, {element.name}" + (", a NaN" if is_bad else "")
    source = draw.values((n, k), DTYPES[element]).contiguous()
    if is_bad:
        source.view(-1)[draw.below(n * k)] = draw.choose([float("nan"), float("inf"), float("-inf")])
    sizes = code_bytes(fmt, n, k), scale_count(n, k, group_n, group_k)
    codes, scales = torch.empty(sizes[0], dtype=torch.uint8), torch.empty(sizes[1])
    found = oracle.quantize_weight(
        *(source.data_ptr(), element, fmt, n, k, group_n, group_k, codes.data_ptr(), scales.data_ptr(), sizes[1])
    )
    on_device, first = Buffer(device.name, source.numel() * source.itemsize), Buffer(device.name, 8, fill=0xFF)
    on_device.view(source.dtype, (n, k)).copy_(source)
    got_codes, got_scales = Buffer(device.name, sizes[0]), Buffer(device.name, sizes[1] * 4)
    device.call(
        "quantize_weight",
        QuantizeWeightArgs(
            *(on_device.pointer, element, fmt, n, k, group_n, group_k),
            *(got_codes.pointer, got_scales.pointer, first.pointer),
        ),
    )
    device.synchronize()
    expect(got_codes.is_guarded() and got_scales.is_guarded(), "memory around the codes or scales was written")
    got_first = int(first.view(torch.int64, (1,)).cpu())
    expect(got_first == found, f"the first value that is not finite is {got_first}, not {found}")
    if found == -1:
        _expect_equal("scales", got_scales.view(torch.int32, (sizes[1],)).cpu(), scales.view(torch.int32))
        _expect_equal("bytes of codes", got_codes.bytes.cpu(), codes)
    yield 0.0


def check_repacking(device, oracle, draw, limits):
    fmt, n, k = draw.choose(list(Format)), draw.size(limits.rows), draw.size(limits.columns)
    yield f"{n} x {k}, {fmt.name}"
    size = code_bytes(fmt, n, k)
    panels = torch.randint(256, (size,), generator=draw.generator, dtype=torch.uint8)
    expected = torch.empty_like(panels)
    oracle.to_device(fmt, n, k, panels.data_ptr(), expected.data_ptr())
    source, target, back = (Buffer(device.name, size) for _ in range(3))
    source.bytes.copy_(panels)
    device.call("repack_weight", RepackArgs(fmt, n, k, False, source.pointer, target.pointer))
    device.call("repack_weight", RepackArgs(fmt, n, k, True, target.pointer, back.pointer))
    device.synchronize()
    _expect_equal("bytes", target.bytes.cpu(), expected)
    _expect_equal("bytes of the way back", back.bytes.cpu(), panels)
    expect(target.is_guarded() and back.is_guarded(), "memory around the codes was written")
    yield 0.0


CHECKS = {
    "repack_weight": check_repacking,
    "quantize_weight": check_weights,
    "quantize_activations": check_activations,
    "convert_activations": check_conversion,
    "fp8_linear": check_fp8_linear,
    "weight_only_linear": check_weight_only_linear,
    "large products": check_large_products,
    "batch invariance": check_batch_invariance,
}


class Limits:
    """The largest shapes that are drawn, and those of large products."""

    def __init__(self, tokens, rows, columns, large):
        self.tokens, self.rows, self.columns, self.large = tokens, rows, columns, large


SMALL = Limits(70, 300, 700, [(140, 400, 200), (260, 390, 70)])
LARGE = [(2100, 4200, 1100), (4097, 7168, 520), (1000, 24570, 390), (8192, 2112, 264), (4090, 4200, 390)]
FULL = Limits(300, 4500, 4500, LARGE)


@dataclass(frozen=True)
class Plan:
    """`cases` at most, from seeds of their own; none starts after `seconds`, none takes longer than `patience`."""

    cases: int
    seed: int
    seconds: float
    patience: float


def _run_case(name, device, oracle, seed, limits, patience):
    """(description, error or None, error's root mean square)"""
    case = CHECKS[name](device, oracle, Draw(seed), limits)
    description = next(case)
    watch = threading.Timer(patience, _report_hanging, (name, description, seed, patience))
    watch.daemon = True
    if not device.is_emulated:
        watch.start()
    try:
        return description, None, next(case)
    except (Failure, VerifyError, RuntimeError) as error:
        return description, error, 0.0
    finally:
        watch.cancel()


def _report_hanging(name, description, seed, patience):
    """A kernel that does not end cannot be stopped from within its process."""
    print(f"{name}, {description} (seed {seed}): no end after {patience:.0f} s", flush=True)
    os._exit(HANGING_EXIT)


def run_checks(device, oracle, name, limits, plan, keep):
    """Runs random cases; every case has a seed of its own, printed where it fails. `keep` gets each result so far."""
    result = {"name": name, "cases": 0, "leftOut": 0, "failures": [], "worst_rms": 0.0}
    count = min(plan.cases, MOST_LARGE) if name == "large products" else plan.cases
    end = time.monotonic() + plan.seconds
    for index in range(count):
        if time.monotonic() > end:
            result["leftOut"] = count - index
            break
        seed = plan.seed * 1_000_000 + index
        description, error, rms = _run_case(name, device, oracle, seed, limits, plan.patience)
        result["cases"] += 1
        result["worst_rms"] = max(result["worst_rms"], rms)
        if error is not None:
            result["failures"].append({"seed": seed, "case": description, "error": str(error).split("\n")[0]})
            print(f"  {description} (seed {seed}): {error}", flush=True)
        keep(result)
        if len(result["failures"]) >= MOST_FAILURES:
            result["leftOut"] = count - index - 1
            break
    passed = result["cases"] - len(result["failures"])
    left_out = f", {result['leftOut']} left out" if result["leftOut"] > 0 else ""
    worst = f"worst error {result['worst_rms']:.2e}"
    print(f"{name}: {passed} of {result['cases']} cases pass{left_out}, {worst}", flush=True)
    keep(result)
    return result
