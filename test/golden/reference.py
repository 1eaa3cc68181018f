"""What the scripts of this folder share: reading and writing safetensors, and a decoder in plain numpy.

The logits are computed in double precision from the definition of the models, with nothing of fdq.
"""
import json
import pathlib
import struct

import numpy as np

MODELS = pathlib.Path(__file__).resolve().parents[1] / "fixtures" / "models"
F32 = np.float32


def read_tensors(path):
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        data = raw[8 + size + begin : 8 + size + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(F32)
        elif entry["dtype"] == "F32":
            values = np.frombuffer(data, "<f4")
        else:
            continue
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def write_tensors(path, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        part = values.tobytes()
        dtype = {"<f4": "F32", "|u1": "U8"}[values.dtype.str]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, theta):
    """[S, heads, D]: halves are pairs (rotate_half of transformers)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-np.arange(half) / half)
    angle = np.arange(len(x))[:, None, None] * frequency
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


def logits_of(config, tensors, ids):
    """Of every position, in double precision: [S, vocabulary]."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim", config["hidden_size"] // heads)
    epsilon, theta = config["rms_norm_eps"], config["rope_theta"]
    x = tensors["model.embed_tokens.weight"][ids].astype(np.float64)
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)

    def project(name, value):
        return value @ tensors[f"{name}.weight"].T.astype(np.float64) + tensors.get(f"{name}.bias", 0)

    def split(name, value, count):
        value = project(name, value).reshape(len(ids), count, size)
        norm = tensors.get(name.replace("_proj", "_norm") + ".weight")
        return value if norm is None else rms_norm(value, norm, epsilon)

    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        h = rms_norm(x, tensors[at + "input_layernorm.weight"], epsilon)
        q = rotate(split(at + "self_attn.q_proj", h, heads), theta)
        k = np.repeat(rotate(split(at + "self_attn.k_proj", h, kv_heads), theta), heads // kv_heads, axis=1)
        v = np.repeat(split(at + "self_attn.v_proj", h, kv_heads), heads // kv_heads, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(size) + mask
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        x = x + project(at + "self_attn.o_proj", np.einsum("hqk,khd->qhd", weights, v).reshape(len(ids), -1))
        h = rms_norm(x, tensors[at + "post_attention_layernorm.weight"], epsilon)
        gate = project(at + "mlp.gate_proj", h)
        x = x + project(at + "mlp.down_proj", gate / (1 + np.exp(-gate)) * project(at + "mlp.up_proj", h))
    head = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    return rms_norm(x, tensors["model.norm.weight"], epsilon) @ head.T.astype(np.float64)


def write_expected(scheme, restore_all):
    """Writes golden_<scheme>.safetensors of fixtures: the last logits of their prompts after restore_all(tensors).

    The unquantized model is computed first and compared with golden.safetensors.
    """
    for fixture in ["qwen2", "qwen3"]:
        folder = MODELS / fixture
        config = json.loads((folder / "config.json").read_text())
        golden = json.loads((folder / "golden.json").read_text())
        reference = read_tensors(folder / "golden.safetensors")
        tensors = read_tensors(folder / "model.safetensors")
        quantized = restore_all(tensors)
        expected = {}
        for prompt in golden["prompts"]:
            index, ids = prompt["index"], prompt["ids"]
            plain = logits_of(config, tensors, ids)[prompt["logit_positions"]]
            difference = np.max(np.abs(plain - reference[f"logits.{index}"].reshape(plain.shape)))
            assert difference <= golden["tolerance"]["atol_float32"], (fixture, index, difference)
            expected[f"logits.{index}"] = logits_of(config, quantized, ids)[-1].astype(F32)
            moved = np.max(np.abs(expected[f"logits.{index}"] - plain[-1]))
            print(fixture, index, f"reference {difference:.1e}, moved by {scheme} {moved:.2f}")
        write_tensors(folder / f"golden_{scheme}.safetensors", expected)
