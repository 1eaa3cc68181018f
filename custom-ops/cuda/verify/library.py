"""fdq/cuda.h by ctypes: its structs, its functions, and the oracle of oracle.cc."""

import ctypes as c
import enum
from pathlib import Path


class VerifyError(Exception):
    """Something expected went wrong; the message says what and what to do."""


class Element(enum.IntEnum):
    FLOAT32 = 0
    FLOAT16 = 1
    BFLOAT16 = 2


class Format(enum.IntEnum):
    INT8 = 3
    INT4 = 4
    E4M3 = 5


class Rule(enum.IntEnum):
    E4M3_GROUP128 = 1
    E4M3_TOKEN = 2
    INT8_TOKEN = 3
    E4M3_STATIC = 4
    INT8_STATIC = 5


class Kernel(enum.IntEnum):
    AUTO = 0
    STREAMING = 1
    WARPGROUP = 2
    MMA = 3


class Weight(c.Structure):
    _fields_ = [
        ("format", c.c_int),
        ("n", c.c_int64),
        ("k", c.c_int64),
        ("group_n", c.c_int),
        ("group_k", c.c_int),
        ("codes", c.c_void_p),
        ("scales", c.c_void_p),
        ("zero_points", c.c_void_p),
    ]


class ActivationArgs(c.Structure):
    _fields_ = [
        ("x", c.c_void_p),
        ("element", c.c_int),
        ("tokens", c.c_int64),
        ("k", c.c_int64),
        ("x_stride", c.c_int64),
        ("rule", c.c_int),
        ("static_scale", c.c_float),
        ("codes", c.c_void_p),
        ("code_stride", c.c_int64),
        ("scales", c.c_void_p),
        ("scale_stride", c.c_int64),
    ]


class ConvertArgs(c.Structure):
    _fields_ = [
        ("x", c.c_void_p),
        ("tokens", c.c_int64),
        ("k", c.c_int64),
        ("x_stride", c.c_int64),
        ("y", c.c_void_p),
        ("y_element", c.c_int),
        ("y_stride", c.c_int64),
    ]


class WorkspaceSize(c.Structure):
    _fields_ = [("counters", c.c_int64), ("partials", c.c_int64)]


class Workspace(c.Structure):
    _fields_ = [("counters", c.c_void_p), ("partials", c.c_void_p), ("size", WorkspaceSize)]


# What the arguments of both products end with.
_PRODUCT = (
    ("weight", Weight),
    ("bias", c.c_void_p),
    ("y", c.c_void_p),
    ("y_element", c.c_int),
    ("y_stride", c.c_int64),
    ("workspace", Workspace),
    ("kernel", c.c_int),
)


class Fp8LinearArgs(c.Structure):
    _fields_ = [
        ("x", c.c_void_p),
        ("x_scales", c.c_void_p),
        ("x_scale_stride", c.c_int64),
        ("rule", c.c_int),
        ("static_scale", c.c_float),
        ("tokens", c.c_int64),
        ("x_stride", c.c_int64),
        *_PRODUCT,
    ]


class WeightOnlyArgs(c.Structure):
    _fields_ = [
        ("x", c.c_void_p),
        ("x_element", c.c_int),
        ("tokens", c.c_int64),
        ("x_stride", c.c_int64),
        *_PRODUCT,
    ]


class RepackArgs(c.Structure):
    _fields_ = [
        ("format", c.c_int),
        ("n", c.c_int64),
        ("k", c.c_int64),
        ("to_panels", c.c_bool),
        ("source", c.c_void_p),
        ("target", c.c_void_p),
    ]


class QuantizeWeightArgs(c.Structure):
    _fields_ = [
        ("source", c.c_void_p),
        ("element", c.c_int),
        ("format", c.c_int),
        ("n", c.c_int64),
        ("k", c.c_int64),
        ("group_n", c.c_int),
        ("group_k", c.c_int),
        ("codes", c.c_void_p),
        ("scales", c.c_void_p),
        ("non_finite", c.c_void_p),
    ]


class DeviceInfo(c.Structure):
    _fields_ = [
        ("major", c.c_int),
        ("minor", c.c_int),
        ("multiprocessors", c.c_int),
        ("shared_bytes_per_block", c.c_int),
    ]


_STRUCTS = (
    *(Weight, ActivationArgs, ConvertArgs, Fp8LinearArgs, WeightOnlyArgs),
    *(RepackArgs, QuantizeWeightArgs, DeviceInfo),
)
_ALIGNMENT = 64  # of padded k
_ROWS = 16  # of a panel


def ceil_div(value, unit):
    return -(-value // unit)


def round_up(value, unit):
    return ceil_div(value, unit) * unit


def code_bytes(fmt, n, k):
    """Bytes of a weight on the device."""
    bits = 4 if fmt == Format.INT4 else 8
    return round_up(n, _ROWS) * round_up(k, _ALIGNMENT) * bits // 8


def scale_count(n, k, group_n, group_k):
    if group_n == 128:
        return ceil_div(n, 128) * ceil_div(k, 128)
    return round_up(n, _ROWS) * (1 if group_k == 0 else ceil_div(k, group_k))


class Library:
    """libfdq_cuda.so; every call raises VerifyError with the library's own message."""

    def __init__(self, path, oracle):
        self.path = Path(path)
        self._library = _open(path)
        get_api = self._library.fdq_cuda_api
        get_api.restype, get_api.argtypes = c.c_void_p, [c.c_uint32]
        self._table = get_api(oracle.layout["version"])
        if not self._table:
            raise VerifyError(f"{path} was built from another fdq/cuda.h than the oracle: build both again.")
        self._layout = oracle.layout

    def _function(self, name, result):
        address = c.c_void_p.from_address(self._table + self._layout[name]).value
        return c.CFUNCTYPE(result, c.c_void_p, c.c_void_p)(address)

    def call(self, name, args, stream=0):
        error = self._function(name, c.c_char_p)(c.addressof(args), stream)
        if error is not None:
            raise VerifyError(f"{name}: {error.decode()}")

    def workspace_size(self, name, args):
        return self._function(name, WorkspaceSize)(c.addressof(args), None)

    def device_info(self):
        info = DeviceInfo()
        self.call("device_info", info)
        return info


class Oracle:
    """libfdq_oracle.so: the CPU's quantizers. Pointers are to host memory."""

    def __init__(self, path):
        library = _open(path)
        library.fdq_oracle_layout.restype = c.c_char_p
        lines = library.fdq_oracle_layout().decode().split("\n")
        self.layout = {name: int(number) for name, number in (line.split() for line in lines if line)}
        for struct in _STRUCTS:
            if c.sizeof(struct) != self.layout[struct.__name__]:
                raise VerifyError(f"library.py declares {struct.__name__} unlike fdq/cuda.h: bring it up to date.")
        self.to_device = library.fdq_oracle_to_device
        self.to_device.restype = None
        self.to_device.argtypes = [c.c_int, c.c_int64, c.c_int64, c.c_void_p, c.c_void_p]
        self.quantize_weight = library.fdq_oracle_quantize_weight
        self.quantize_weight.restype = c.c_int64
        self.quantize_weight.argtypes = [c.c_void_p, c.c_int, c.c_int, c.c_int64, c.c_int64, c.c_int, c.c_int]
        self.quantize_weight.argtypes += [c.c_void_p, c.c_void_p, c.c_int64]
        self.quantize_run = library.fdq_oracle_quantize_run
        self.quantize_run.restype = c.c_float
        self.quantize_run.argtypes = [c.c_void_p, c.c_int, c.c_int64, c.c_int, c.c_float, c.c_void_p]


def _open(path):
    try:
        return c.CDLL(str(path))
    except OSError as error:
        raise VerifyError(f"{path} cannot be loaded: {error}. Run `run.py build` first.") from error
