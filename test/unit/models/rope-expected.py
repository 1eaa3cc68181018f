"""Writes rope-expected.json: inverse frequencies as transformers' own functions compute them.

Usage: python rope-expected.py <folder of transformers 5.23.0> > rope-expected.json
Needs numpy only: PyTorch's few functions are replaced by numpy's in float32.
"""

import ast
import json
import math
import sys
from types import SimpleNamespace

import numpy as np


class Tensor(np.ndarray):
    def to(self, device=None, dtype=None):
        return self if dtype is None else self.astype(dtype)

    # PyTorch computes scalar / tensor as reciprocal(tensor) * scalar.
    def __rtruediv__(self, scalar):
        return np.reciprocal(self) * np.float32(scalar)


torch = SimpleNamespace(
    Tensor=Tensor,
    int64=np.int64,
    float=np.float32,
    float32=np.float32,
    arange=lambda *args, dtype=np.int64: np.arange(*args).astype(dtype).view(Tensor),
    clamp=lambda x, low, high: np.clip(x, low, high),
    where=np.where,
)

CASES = [
    ("linear", 128, 4096, {"factor": 4.0}),
    ("dynamic", 64, 2048, {"factor": 2.5}),
    ("llama3", 128, 131072, {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 8192, "rope_theta": 500000.0}),
    ("llama3", 32, 512, {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64, "rope_theta": 500000.0}),
    ("yarn", 128, 32768, {"factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1000000.0}),
    ("yarn", 64, 131072, {"factor": 32.0, "original_max_position_embeddings": 4096, "rope_theta": 150000,
                          "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}),
    ("yarn", 64, 163840, {"factor": 40, "original_max_position_embeddings": 4096, "mscale": 0.8,
                          "mscale_all_dim": 1.2, "beta_fast": 24, "beta_slow": 2}),
    ("yarn", 64, 8192, {"factor": 2.0, "original_max_position_embeddings": 4096, "attention_factor": 1.25}),
    ("yarn", 128, 16384, {"factor": None, "original_max_position_embeddings": 4096}),
    ("yarn", 8, 64, {"factor": 2.0, "original_max_position_embeddings": 4}),
    ("linear", 80, 4096, {"factor": 3.0, "partial_rotary_factor": 0.4}),
]


def load(folder):
    tree = ast.parse(open(f"{folder}/modeling_rope_utils.py").read())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("_compute")]
    for function in functions:
        function.returns = None
        for argument in function.args.args:
            argument.annotation = None
    space = {"torch": torch, "math": math}
    exec(compile(ast.Module(functions, []), "rope", "exec"), space)
    names = {"linear": "linear_scaling_rope", "dynamic": "dynamic_ntk", "llama3": "llama3", "yarn": "yarn"}
    return {kind: space[f"_compute_{name}_parameters"] for kind, name in names.items()}


def main():
    compute = load(sys.argv[1])
    cases = []
    for kind, head_dim, positions, parameters in CASES:
        rope = {"rope_type": kind, "rope_theta": 10000.0, **parameters}
        config = SimpleNamespace(head_dim=head_dim, hidden_size=head_dim, num_attention_heads=1,
                                 max_position_embeddings=positions, rope_parameters=rope,
                                 standardize_rope_params=lambda: None)
        frequencies, attention_factor = compute[kind](config)
        cases.append({"headDim": head_dim, "maxPositions": positions, "rope": rope,
                      "frequencies": [float(np.format_float_scientific(f, unique=True)) for f in frequencies],
                      "attentionFactor": attention_factor})
    print(json.dumps({"description": "Written by rope-expected.py from transformers 5.23.0, numpy 2.4.6", "cases": cases}))


main()
