"""The logic of custom-ops/cuda/verify/bench.py, on a device that is made up (fake/torch.py)."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

from support import Patient

import torch  # the fake one

import bench
from library import VerifyError, WorkspaceSize
from report import to_markdown
from results import BenchResults, digest_sources, read_json
from shapes import CASES, Case


class FakeDevice:
    """Kernels that take `microseconds` each, or that fail."""

    name, is_emulated = "cuda", False

    def __init__(self, microseconds=4.0):
        self.microseconds, self.error, self.calls, self.library = microseconds, None, [], self

    def workspace_size(self, _name, _args):
        return WorkspaceSize(0, 0)

    def call(self, name, _args):
        self.calls.append(name)
        if self.error is not None:
            raise self.error
        torch.clock.spend(self.microseconds)


def find(text):
    return next(case for case in CASES if case.describe() == text)


class BenchTest(unittest.TestCase):
    def setUp(self):
        torch.clock.__init__()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "bench.json"
        self.results = BenchResults(self.path)

    def measure(self, cases, device=None, clock=None):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            is_lost = bench.measure(device or FakeDevice(), cases, self.results, clock or Patient())
        self.printed = printed.getvalue()
        self.assertEqual(read_json(self.path)["rows"], json.loads(json.dumps(self.results.rows)))
        return is_lost

    def row(self, case):
        return next(row for row in self.results.rows if row["case"] == case.describe())

    def test_every_case_is_measured_beside_pytorch(self):
        self.assertFalse(self.measure(CASES))
        self.assertEqual([row["case"] for row in self.results.rows], [case.describe() for case in CASES])
        for row in self.results.rows:
            self.assertEqual([name for name in row if name.endswith("rror")], [], row)
            self.assertAlmostEqual(row["microseconds"], 4.0)
            self.assertEqual("bfloat16Microseconds" in row, row["kind"] not in ("activations", "weights"), row)
            self.assertEqual("scaledMmMicroseconds" in row, "fp8" in row["kind"], row)
        self.assertIsNone(self.results.running)
        # A GPU with 80 GB has room for the operands of every case.
        self.assertLess(torch.clock.peak, 40e9)

    def test_rates_are_of_the_limits_of_the_device(self):
        case = find("block fp8 4096 x 7168 x 16384")
        self.measure([case], FakeDevice(800.0))
        row = self.row(case)
        operations, scales = 2 * 4096 * 7168 * 16384, 4 * 56 * 128
        moved = 7168 * 16384 + 4096 * 16384 + 2 * 4096 * 7168 + scales
        self.assertAlmostEqual(row["teraflops"], operations / 800e-6 / 1e12)
        self.assertAlmostEqual(row["gigabytesPerSecond"], moved / 800e-6 / 1e9)
        self.assertAlmostEqual(row["bandwidthShare"], moved / 800e-6 / 4.8e12)
        self.assertAlmostEqual(row["computeShare"], operations / 800e-6 / 1979e12)

    def test_copies_are_more_than_the_cache_holds(self):
        small, large = find("wint4 1 x 8192 x 4096"), find("block fp8 1 x 24576 x 7168")
        device = FakeDevice()
        self.measure([small], device)
        # 15 copies of 16.8 MB are four times 60 MiB; two rounds in the graph, one before it.
        self.assertEqual(len(device.calls), 15 + 2 * 15)
        device.calls.clear()
        self.measure([large], device)
        self.assertEqual(len(device.calls), 2 + 20)

    def test_bars(self):
        many, few = find("block fp8 2048 x 24576 x 1536"), find("wint8 16 x 7168 x 16384")
        at = 2 * 2048 * 24576 * 1536 / 1200e12 * 1e6
        torch.clock.costs["matmul"] = at
        for microseconds, is_met in ((at * 0.99, True), (at * 1.01, False)):
            self.results.rows = []
            self.measure([many], FakeDevice(microseconds))
            self.assertEqual((self.row(many)["bar"], self.row(many)["isMet"]), (("TFLOPS", 1200), is_met))
        torch.clock.costs["matmul"] = at * 0.5  # 1200 TFLOPS, but slower than bfloat16
        self.results.rows = []
        self.measure([many], FakeDevice(at * 0.9))
        self.assertIs(self.row(many)["isMet"], False)
        moved = 7168 * 16384 + 2 * 16 * 16384 + 2 * 16 * 7168 + 4 * 7168
        for share, is_met in ((0.81, True), (0.79, False)):
            self.results.rows = []
            self.measure([few], FakeDevice(moved / (share * 4.8e12) * 1e6))
            self.assertEqual((self.row(few)["bar"], self.row(few)["isMet"]), (("bandwidth", 0.8), is_met))

    def test_bars_come_first_and_are_those_of_the_issue(self):
        has_bar = [case.bar() is not None for case in CASES]
        self.assertEqual(has_bar, sorted(has_bar, reverse=True))
        bars = {case.describe(): case.bar() for case in CASES}
        self.assertEqual(bars["block fp8 64 x 4096 x 4096"], ("bandwidth", 0.65))
        self.assertEqual(bars["wint4 groups of 128 16 x 8192 x 4096"], ("bandwidth", 0.6))
        self.assertEqual(bars["wint4 1 x 24576 x 7168"], ("bandwidth", 0.8))
        self.assertEqual(bars["activations 32768 x 7168"], ("bandwidth", 0.8))
        self.assertIsNone(bars["block fp8 2048 x 2112 x 7168"])

    def test_what_one_measurement_cannot_do_is_kept_apart(self):
        case, after = find("block fp8 64 x 4096 x 4096"), find("wint8 1 x 4096 x 4096")
        device = FakeDevice()
        device.error = VerifyError("fp8_linear: no tensor map")
        self.assertFalse(self.measure([case], device))
        row = self.row(case)
        self.assertEqual(row["error"], "fp8_linear: no tensor map")
        self.assertAlmostEqual(row["bfloat16Microseconds"], 10.0)
        self.assertAlmostEqual(row["scaledMmMicroseconds"], 5.0)
        self.assertNotIn("isMet", row)
        self.assertIn("no tensor map", self.printed)
        # A shape that PyTorch has no kernel for.
        odd = Case("block fp8", 64, 4096, 4096 + 64)
        self.measure([odd, after])
        self.assertTrue(self.row(odd)["scaledMmError"].startswith("Invalid scaling configuration."))
        self.assertAlmostEqual(self.row(odd)["microseconds"], 4.0)
        self.assertAlmostEqual(self.row(after)["microseconds"], 4.0)

    def test_a_lost_device_ends_the_worker_with_what_it_had(self):
        lost, after = find("block fp8 64 x 4096 x 4096"), find("wint8 1 x 4096 x 4096")
        device = FakeDevice()

        def call(_name, _args):
            torch.clock.is_lost = True
            torch.clock.spend(0)

        device.call = call
        self.assertTrue(self.measure([lost, after], device))
        self.assertIn("illegal memory access", self.row(lost)["error"])
        self.assertFalse(self.results.has(after))

    def test_no_case_starts_after_the_time(self):
        self.measure(CASES, clock=Patient(3))
        self.assertEqual(len(self.results.rows), 3)
        # The next worker goes on.
        self.measure(CASES[:5])
        self.assertEqual([row["case"] for row in self.results.rows], [case.describe() for case in CASES[:5]])

    def test_resuming_keeps_what_was_measured_of_the_same_sources(self):
        self.results.take_up("a")
        device = FakeDevice()
        self.measure(CASES[:2], device)
        device.error = VerifyError("no")
        self.measure(CASES[2:3], device)
        again = BenchResults(self.path.with_name("next.json"), self.path)
        again.take_up("a")
        self.assertEqual([row["case"] for row in again.rows], [case.describe() for case in CASES[:2]])
        again.take_up("b")
        self.assertEqual(again.rows, [])
        self.assertEqual(len(digest_sources()), 16)

    def test_markdown(self):
        self.measure([find("block fp8 64 x 4096 x 4096"), find("weights 7168 x 16384")])
        self.results.update({"case": "a", "isLeftOut": True})
        self.results.update({"case": "b", "error": "no memory"})
        lines = to_markdown(self.results.content()).split("\n")
        self.assertTrue(lines[2].startswith("| block fp8 64 x 4096 x 4096 | 4.0 | "))
        self.assertTrue(lines[2].endswith(" | 10.0 | 5.0 | 65%: met |"))
        self.assertEqual(lines[4:], ["| a | left out | | | | | |", "| b | no memory | | | | | |"])
        self.assertEqual({line.count("|") for line in lines}, {8})


if __name__ == "__main__":
    unittest.main()
