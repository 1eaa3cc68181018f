"""What is measured: every kernel at the shapes of its bars."""

from dataclasses import dataclass

# (n, k) of linear layers in the public table of DeepGEMM.
LARGE = [(7168, 16384), (4096, 7168), (24576, 1536), (2112, 7168), (32768, 512), (7168, 2048)]
STREAMED = [(7168, 16384), (24576, 7168), (4096, 4096)]
INT4_STREAMED = [(7168, 16384), (24576, 7168), (8192, 4096)]
MEGABYTE = 1e6


@dataclass(frozen=True)
class Case:
    """`kind` is a scheme, "activations" or "weights"."""

    kind: str
    tokens: int
    n: int
    k: int

    def describe(self):
        """A case without tokens or without outputs leaves them out."""
        return f"{self.kind} " + " x ".join(str(size) for size in (self.tokens, self.n, self.k) if size > 0)

    @property
    def weight_bytes(self):
        return self.n * self.k // (2 if "int4" in self.kind else 1)

    def bar(self):
        """What the kernel has to reach: ("TFLOPS", least), ("bandwidth", share) or None."""
        if self.kind == "activations" and self.tokens >= 8192:
            return ("bandwidth", 0.8)
        if self.kind == "block fp8" and self.tokens >= 2048:
            return ("TFLOPS", 1200) if (self.n, self.k) in LARGE[:3] else None
        if self.kind == "block fp8" and self.tokens == 64:
            return ("bandwidth", 0.65)
        if self.tokens <= 16 and self.n > 0 and self.kind != "weights":
            if self.weight_bytes >= 64 * MEGABYTE:
                return ("bandwidth", 0.8)
            if self.weight_bytes >= 16 * MEGABYTE:
                return ("bandwidth", 0.6)
        return None


def _cases():
    for tokens in (2048, 4096, 8192):
        yield from (Case("block fp8", tokens, n, k) for n, k in LARGE)
    for tokens in (64, 16, 1):
        yield from (Case("block fp8", tokens, n, k) for n, k in STREAMED)
    yield from (Case("block fp8", tokens, 7168, 16384) for tokens in (128, 512))
    for tokens in (4096, 16, 1):
        yield from (Case("token fp8", tokens, n, k) for n, k in STREAMED[::2])
    for kind, shapes in (("wint8", STREAMED), ("wint4", INT4_STREAMED), ("wint4 groups of 128", INT4_STREAMED)):
        for tokens in (1, 16, 32, 64, 256, 4096):
            yield from (Case(kind, tokens, n, k) for n, k in shapes)
    yield from (Case("activations", tokens, 0, 7168) for tokens in (64, 1024, 8192, 32768))
    yield Case("weights", 0, 7168, 16384)


CASES = sorted(_cases(), key=lambda case: case.bar() is None)  # those with a bar first
