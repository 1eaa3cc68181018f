"""Writes golden_wint2.safetensors of fixtures: logits of their prompts with the projections in wint2.

    python3 test/golden/wint2-expected.py    (needs numpy)

Written from the definition in docs/quantization.md, with nothing of fdq: a group of 64 inputs of a row (the last may be
shorter) has the levels -3, -1, 1, 3 times a scale. Tried are amax / 3 * (64 - c) / 64 for c = 0 .. 47, each rounded to
6 significant bits; the least sum of squared errors wins, the larger scale of equal ones. A weight exactly between two
levels takes the higher one. The unquantized model is computed first and compared with golden.safetensors.
"""
import numpy as np

from reference import F32, write_expected


def to_six_bits(scales):
    mantissa, exponent = np.frexp(scales.astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, 6)), exponent - 6).astype(F32)


def levels_of(quotients):
    at_least = [quotients >= boundary for boundary in (-2, 0, 2)]
    return (2 * np.sum(at_least, axis=0) - 3).astype(F32)


def restore_group(group):
    """[N, up to 64] to what wint2 makes of it."""
    first = np.max(np.abs(group), axis=1) / F32(3)
    best = np.zeros_like(group)
    least = np.full(len(group), np.inf)
    for c in range(48):
        scale = to_six_bits(first * F32((64 - c) / 64))[:, None]
        safe = np.where(scale == 0, F32(1), scale)
        restored = levels_of(group / safe) * safe
        squares = (group.astype(np.float64) - restored.astype(np.float64)) ** 2
        error = np.cumsum(squares, axis=1)[:, -1]
        better = (error < least) & (scale[:, 0] != 0)
        best[better] = restored[better]
        least[better] = error[better]
    return best


def restore(weight):
    return np.concatenate([restore_group(weight[:, k : k + 64]) for k in range(0, weight.shape[1], 64)], axis=1)


def restore_all(tensors):
    return {n: restore(t) if n.endswith("_proj.weight") else t for n, t in tensors.items()}


if __name__ == "__main__":
    write_expected("wint2", restore_all)
