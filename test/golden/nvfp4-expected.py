"""Writes golden_nvfp4.safetensors of fixtures: logits of their prompts with the projections in nvfp4; and
nvfp4_given.safetensors beside the golden vectors: their weights under tensor scales from outside.

    python3 test/golden/nvfp4-expected.py    (needs numpy)

Written from the definition in docs/quantization.md, with nothing of fdq: a tensor's scale is amax / 2688 in float32, a
group of 16 inputs of a row has the scale e4m3((amax / 6) / tensor scale), and a weight the code e2m1(w / (group scale *
tensor scale)). q, k and v share the tensor scale of the largest magnitude of all three, and so do gate and up.
"""
import numpy as np

from reference import F32, MODELS, read_tensors, write_expected, write_tensors

GROUP = 16
FUSED = [["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"], ["o_proj"], ["down_proj"]]

# What a matrix' own scale is multiplied with; a smaller one lets values saturate.
CASES = ["normal_1x1", "normal_3x5", "normal_16x16", "row_magnitudes", "outlier", "ties_fp4", "subnormal", "huge", "zero_rows"]
FACTORS = {"own": 1, "near": 1.37, "far": 700, "beyond": 2e5, "smaller": 0.2}
ABSOLUTE = {"least": 2.0**-149, "most": (2 - 2.0**-23) * 2.0**127}


def to_e4m3_code(values):
    """Of values from 0 on; nearest, ties to the even code, 448 for all beyond."""
    limited = np.minimum(values.astype(np.float64), 448)
    exponent = np.maximum(np.frexp(limited)[1] - 1, -6)
    eighths = np.rint(np.ldexp(limited, 3 - exponent)).astype(np.int64)
    return np.where(limited < 2.0**-6, eighths, (exponent + 6) * 8 + eighths).astype(np.uint8)


def from_e4m3_code(codes):
    exponent, mantissa = (codes >> 3).astype(np.int64), (codes & 7).astype(np.float64)
    return np.where(exponent == 0, mantissa / 512, np.ldexp(1 + mantissa / 8, exponent - 7)).astype(F32)


def to_e2m1_code(values):
    """Nearest, ties to the even code, 6 for all beyond; the sign of zero is kept."""
    limited = np.minimum(np.abs(values).astype(np.float64), 6)
    exponent = np.maximum(np.frexp(limited)[1] - 1, 0)
    halves = np.rint(np.ldexp(limited, 1 - exponent)).astype(np.int64)
    return np.where(limited < 1, halves, exponent * 2 + halves).astype(np.uint8) | (np.signbit(values) * np.uint8(8))


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], F32)


def scale_of(amax):
    scale = F32(amax) / F32(2688)
    return scale if scale > 0 else F32(1)


def quantize(weight, tensor_scale):
    """[N, K] to codes and group scales' codes, with groups filled up with zeros: [N, K / 16, 16] and [N, K / 16]."""
    groups = np.pad(weight, [(0, 0), (0, -weight.shape[1] % GROUP)]).reshape(len(weight), -1, GROUP)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        scales = to_e4m3_code(np.max(np.abs(groups), axis=2) / F32(6) / tensor_scale)
        steps = (from_e4m3_code(scales) * tensor_scale)[:, :, None]
        codes = to_e2m1_code(np.where(steps == 0, F32(0), groups / steps))
    return codes, scales, steps


def restore(weight, tensor_scale):
    codes, _, steps = quantize(weight, tensor_scale)
    values = np.where(codes < 8, E2M1[codes & 7], -E2M1[codes & 7]) * steps
    return values.reshape(len(weight), -1)[:, : weight.shape[1]]


def restore_all(tensors):
    restored = dict(tensors)
    for names in FUSED:
        suffix = f".{names[0]}.weight"
        for first in [name for name in tensors if name.endswith(suffix)]:
            members = [first.replace(names[0], name) for name in names]
            scale = scale_of(max(np.max(np.abs(tensors[name])) for name in members))
            restored.update({name: restore(tensors[name], scale) for name in members})
    return restored


def write_given():
    folder = MODELS.parent / "quantizers"
    inputs = read_tensors(folder / "inputs.safetensors")
    given = {}
    for case in CASES:
        weight = inputs[f"W.{case}"]
        own = scale_of(np.max(np.abs(weight)))
        with np.errstate(over="ignore"):
            scales = {name: own * F32(factor) for name, factor in FACTORS.items()}
        scales.update({name: F32(value) for name, value in ABSOLUTE.items()})
        for name, scale in scales.items():
            if not 0 < scale < np.inf:
                continue
            codes, group_scales, _ = quantize(weight, scale)
            rows = codes.reshape(len(weight), -1)
            given[f"{case}.{name}.packed"] = rows[:, 0::2] | rows[:, 1::2] << 4
            given[f"{case}.{name}.scale"] = group_scales
            given[f"{case}.{name}.global_scale"] = np.array([scale], F32)
    write_tensors(folder / "nvfp4_given.safetensors", given)


if __name__ == "__main__":
    write_given()
    write_expected("nvfp4", restore_all)
