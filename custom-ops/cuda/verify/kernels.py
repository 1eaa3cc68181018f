"""Calls of the products over operands of operands.py."""

import torch

from library import Fp8LinearArgs, Kernel, Weight, WeightOnlyArgs, Workspace
from operands import DTYPES, Buffer

HOPPER = 9
SKINNY_TOKENS = 64  # of e4m3's kernel for few tokens on Hopper
STREAMING_TOKENS = 32  # elsewhere
WEIGHT_ONLY_TOKENS = 512


class Device:
    """Where the kernels run: a GPU, or the emulator of a library that was built for the host."""

    def __init__(self, library, name):
        self.library, self.name = library, name
        self.is_emulated = name == "cpu"
        self.info = library.device_info()

    @property
    def stream(self):
        return 0 if self.is_emulated else torch.cuda.current_stream().cuda_stream

    def synchronize(self):
        if not self.is_emulated:
            torch.cuda.synchronize()

    def call(self, name, args):
        self.library.call(name, args, self.stream)

    def fp8_kernels(self, tokens):
        few = SKINNY_TOKENS if self.info.major == HOPPER else STREAMING_TOKENS
        kernels = [Kernel.AUTO, Kernel.MMA]
        if tokens <= few:
            kernels.append(Kernel.STREAMING)
        if self.info.major == HOPPER:
            kernels.append(Kernel.WARPGROUP)
        return kernels

    def weight_only_kernels(self, operands):
        kernels = [Kernel.AUTO, Kernel.MMA]
        has_chunks = operands.group_k == 32 or operands.group_k % 64 == 0
        if self.info.major == HOPPER and operands.x_stride % 8 == 0 and has_chunks:
            kernels.append(Kernel.WARPGROUP)
            if operands.shape[0] <= WEIGHT_ONLY_TOKENS:
                kernels.append(Kernel.STREAMING)
        return kernels


class Product:
    """One product with its output and workspace, ready to be run again and again."""

    def __init__(self, device, operands, kernel, output, bias=None, y_padding=0):
        self.device, self.operands, self.output = device, operands, output
        tokens, n, _ = operands.shape
        self.y_stride = n + y_padding
        self.y = Buffer(device.name, tokens * self.y_stride * DTYPES[output].itemsize)
        self._bias = bias
        self.function = "fp8_linear" if hasattr(operands, "rule") else "weight_only_linear"
        self.args = self._fp8_args() if self.function == "fp8_linear" else self._weight_only_args()
        self.args.tokens = tokens
        self.args.weight = Weight(
            getattr(operands, "format", 5),
            *(n, operands.shape[2], operands.group_n, operands.group_k),
            *(operands.w.pointer, operands.w_scales.pointer, None),
        )
        if getattr(operands, "zero_points", None) is not None:
            self.args.weight.zero_points = operands.zero_points.pointer
        self.args.bias = None if bias is None else bias.data_ptr()
        self.args.y, self.args.y_element, self.args.y_stride = self.y.pointer, output, self.y_stride
        self.args.kernel = kernel
        name = self.function.replace("_linear", "_linear_workspace" if "fp8" in self.function else "_workspace")
        size = device.library.workspace_size(name, self.args)
        self.counters = Buffer(device.name, max(size.counters, 16), fill=0)
        self.partials = Buffer(device.name, max(size.partials, 16))
        self.args.workspace = Workspace(self.counters.pointer, self.partials.pointer, size)

    def _fp8_args(self):
        o = self.operands
        return Fp8LinearArgs(
            x=o.x.pointer,
            x_scales=o.x_scales.pointer,
            x_scale_stride=o.scale_stride,
            rule=o.rule,
            static_scale=o.static_scale,
            x_stride=o.x_stride,
        )

    def _weight_only_args(self):
        o = self.operands
        return WeightOnlyArgs(x=o.x.pointer, x_element=o.element, x_stride=o.x_stride)

    def run(self):
        self.device.call(self.function, self.args)

    def result(self):
        """[tokens, y_stride] as stored, on the host."""
        self.device.synchronize()
        shape = (self.operands.shape[0], self.y_stride)
        return self.y.view(DTYPES[self.output], shape).cpu()

    def are_guards_intact(self):
        return all(each.is_guarded() for each in (self.y, self.counters, self.partials))
