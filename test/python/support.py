"""What the tests of custom-ops/cuda/verify share; it and the fake torch are importable from here on."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE / "fake"), str(HERE.parents[1] / "custom-ops" / "cuda" / "verify")]


class Patient:
    def __init__(self, cases=10**6):
        self.cases = cases

    def left(self):
        """Time for so many cases."""
        self.cases -= 1
        return self.cases + 1
