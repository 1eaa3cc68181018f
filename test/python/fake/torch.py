"""
Enough of PyTorch to run custom-ops/cuda/verify/bench.py without it and without a GPU: tensors have shapes, strides and
types but no values, and time passes only where a kernel is called. `_scaled_mm` takes what PyTorch's documented
checks take (aten/src/ATen/native/cuda/ScaledBlas.cpp, 2.9 and later) and raises RuntimeError for anything else.
"""

import math


class Clock:
    """Microseconds of the device; `costs` names what calls of PyTorch cost."""

    def __init__(self):
        self.now, self.recorded, self.is_lost, self.memory, self.peak = 0.0, None, False, 0, 0
        self.costs = {"matmul": 10.0, "_scaled_mm": 5.0}

    def spend(self, microseconds):
        if self.is_lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if self.recorded is not None:
            self.recorded.append(microseconds)
        else:
            self.now += microseconds


clock = Clock()


class dtype:
    def __init__(self, name, itemsize):
        self.name, self.itemsize = name, itemsize


uint8, int8, int32, int64 = dtype("uint8", 1), dtype("int8", 1), dtype("int32", 4), dtype("int64", 8)
float8_e4m3fn, bfloat16, float16 = dtype("float8_e4m3fn", 1), dtype("bfloat16", 2), dtype("float16", 2)
float32, float64 = dtype("float32", 4), dtype("float64", 8)


class Storage:
    def __init__(self, size):
        self.size = size
        clock.memory += size
        clock.peak = max(clock.peak, clock.memory)

    def __del__(self):
        clock.memory -= self.size


class Tensor:
    def __init__(self, shape, kind=float32, strides=None, storage=None):
        self.shape, self.dtype = tuple(shape), kind
        self.strides = strides or tuple(math.prod(self.shape[i + 1 :]) for i in range(len(self.shape)))
        self.storage = storage or Storage(math.prod(self.shape) * kind.itemsize)

    def data_ptr(self):
        return id(self.storage)

    def t(self):
        return Tensor(self.shape[::-1], self.dtype, self.strides[::-1], self.storage)

    def to(self, kind):
        return Tensor(self.shape, kind)

    def view(self, *shape):
        if isinstance(shape[0], dtype):
            count = math.prod(self.shape) * self.dtype.itemsize // shape[0].itemsize
            return Tensor((count,), shape[0], None, self.storage)
        if isinstance(shape[0], tuple):
            (shape,) = shape
        assert math.prod(shape) == math.prod(self.shape), (shape, self.shape)
        return Tensor(shape, self.dtype, None, self.storage)

    def __getitem__(self, index):
        assert isinstance(index, slice) and index.step is None and len(self.shape) == 1
        return Tensor((len(range(*index.indices(self.shape[0]))),), self.dtype, None, self.storage)

    def copy_(self, other):
        assert other.shape == self.shape
        return self

    def clamp(self, *_limits):
        return self

    def __mul__(self, _other):
        return self

    def cpu(self):
        return self

    def _same(self, *_arguments):
        return self

    fill_ = normal_ = uniform_ = random_ = _same


def _make(*shape, device=None, dtype=float32):
    assert device == "cuda"
    return Tensor(shape[0] if isinstance(shape[0], tuple) else shape, dtype)


randn = rand = zeros = _make


def full(shape, _value, dtype, device):
    return _make(shape, device=device, dtype=dtype)


def matmul(x, w):
    assert x.shape[1] == w.shape[0] and x.dtype is bfloat16 and w.dtype is bfloat16
    clock.spend(clock.costs["matmul"])


def _lies(scale, shape, strides):
    """PyTorch ignores the stride of a dimension of 1."""
    same = all(size == 1 or have == want for size, have, want in zip(shape, scale.strides, strides))
    return scale.shape == shape and scale.dtype is float32 and same


def _scaled_mm(x, w, scale_a, scale_b, bias=None, scale_result=None, out_dtype=None, use_fast_accum=False):
    assert bias is None and scale_result is None and not use_fast_accum and out_dtype is bfloat16
    (m, k), (inner, n) = x.shape, w.shape
    if x.dtype is not float8_e4m3fn or w.dtype is not float8_e4m3fn or inner != k:
        raise RuntimeError("operands")
    if x.strides != (k, 1) or w.strides != (1, k):
        raise RuntimeError("Only multiplication of row-major and column-major matrices is supported")
    if k % 16 != 0 or n % 16 != 0:
        raise RuntimeError("Expected trailing dimensions to be divisible by 16")
    groups, rows = -(-k // 128), -(-n // 128)
    is_row_wise = _lies(scale_a, (m, 1), (1, 1)) and _lies(scale_b, (1, n), (n, 1))
    # Strides of scales of tiles are multiples of 16 bytes.
    is_block_wise = _lies(scale_a, (m, groups), (1, m)) and _lies(scale_b, (groups, rows), (1, groups))
    if not is_row_wise and not (is_block_wise and groups % 4 == 0):
        raise RuntimeError(f"Invalid scaling configuration.\nscale_a {scale_a.shape}, scale_b {scale_b.shape}")
    clock.spend(clock.costs["_scaled_mm"])


class _Graph:
    def __init__(self):
        self.calls = []

    def replay(self):
        clock.spend(sum(self.calls))


class _Capture:
    def __init__(self, graph):
        self.graph = graph

    def __enter__(self):
        clock.recorded = self.graph.calls

    def __exit__(self, *_error):
        clock.recorded = None


class _Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = clock.now

    def elapsed_time(self, end):
        return (end.at - self.at) / 1000


class cuda:
    CUDAGraph, graph, Event = _Graph, _Capture, _Event
    name = "NVIDIA H200"

    @staticmethod
    def synchronize():
        clock.spend(0)

    @staticmethod
    def empty_cache():
        pass

    @classmethod
    def get_device_name(cls):
        return cls.name

    @staticmethod
    def get_device_properties(_index):
        return type("Properties", (), {"L2_cache_size": 60 << 20})
