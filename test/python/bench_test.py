"""The logic of custom-ops/cuda/verify/bench.py and of what runs it, on a device that is made up (fake/torch.py)."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE / "fake"), str(HERE.parents[1] / "custom-ops" / "cuda" / "verify")]

import torch  # the fake one

import bench
import steps
from library import VerifyError, WorkspaceSize
from report import to_markdown
from results import BenchResults, digest_sources, read_json, write_json
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


class Patient:
    def __init__(self, cases=10**6):
        self.cases = cases

    def left(self):
        """Time for so many cases."""
        self.cases -= 1
        return self.cases + 1


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


class SuperviseTest(unittest.TestCase):
    """Workers that are functions: each takes the cases that are left, and ends as a worker may."""

    cases = CASES[:4]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = BenchResults(Path(folder.name) / "bench.json")
        self.results.take_up("a")
        self.runs = 0

    def worker(self, *endings):
        """`endings`: (cases measured, whether it dies in the next one, exit status)."""

        def work():
            measured, dies, status = endings[self.runs]
            self.runs += 1
            shared = BenchResults(self.results.path)
            due = [case for case in self.cases if not shared.has(case)]
            for case in due[:measured]:
                shared.begin(case)
                shared.finish({"case": case.describe(), "microseconds": 1.0})
            if dies:
                shared.begin(due[measured])
            return status

        return work

    def supervise(self, *endings, seconds=100):
        return steps.supervise(self.worker(*endings), self.results, self.cases, Patient(seconds))

    def shown(self):
        return [
            "left out" if "isLeftOut" in row else row.get("error", "measured")
            for row in sorted(self.results.rows, key=lambda row: [c.describe() for c in self.cases].index(row["case"]))
        ]

    def test_one_worker_does_all(self):
        self.assertEqual(self.supervise((4, False, 0)), 0)
        self.assertEqual(self.shown(), ["measured"] * 4)

    def test_the_case_a_worker_died_in_is_passed_over(self):
        self.assertEqual(self.supervise((1, True, -11), (2, False, 0)), 1)
        self.assertEqual(self.shown(), ["measured", "broke off with exit code -11", "measured", "measured"])

    def test_a_lost_device_needs_another_worker(self):
        self.assertEqual(self.supervise((2, False, steps.DEVICE_LOST), (2, False, 0)), 0)
        self.assertEqual((self.shown(), self.runs), (["measured"] * 4, 2))

    def test_a_worker_that_never_gets_to_a_case_is_not_started_for_ever(self):
        self.assertEqual(self.supervise((0, False, -9)), 1)
        self.assertEqual((self.shown(), self.runs), (["left out"] * 4, 1))

    def test_what_time_ran_out_for_is_left_out(self):
        self.assertEqual(self.supervise((2, True, None), seconds=2), 0)
        self.assertEqual(self.shown(), ["measured", "measured", "left out", "left out"])

    def test_a_machine_without_a_gpu(self):
        self.assertEqual(self.supervise((0, False, steps.MISSING)), steps.MISSING)


class AllTest(unittest.TestCase):
    """`run.py all` with steps that only note what they were asked."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.asked, self.status = Path(folder.name), [], {}
        names = ("build", "check", "sanitize", "bench")
        for name, step in [(name, getattr(steps, name)) for name in names]:
            self.addCleanup(setattr, steps, name, step)
            setattr(steps, name, lambda options, name=name: self.note(name, options))

    def note(self, name, options):
        self.asked.append((name, options))
        if self.status.get(name) == "missing":
            raise steps.Missing(f"no {name}")
        return self.status.get(name, 0)

    def run_all(self, *argv):
        from run import parse

        arguments = parse(["all", "--out", str(self.folder / "out"), *argv])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            status = arguments.run(arguments)
        self.errors = errors.getvalue()
        return status

    def test_four_steps_share_the_budget(self):
        self.assertEqual(self.run_all("--budget", "500"), 0)
        self.assertEqual([name for name, _ in self.asked], ["build", "check", "sanitize", "bench"])
        seconds = [options.seconds for _, options in self.asked]
        self.assertAlmostEqual(seconds[0], 400, delta=1)
        self.assertTrue(all(150 < each <= 500 for each in seconds), seconds)
        keys = ("json", "log", "markdown")
        files = [getattr(options, key, None) for _, options in self.asked for key in keys]
        names = {Path(file).name for file in files if file is not None}
        self.assertEqual(names, {"build.log", "check.json", "sanitize.json", "sanitize.log", "bench.json", "bench.md"})

    def test_what_is_missing_or_fails_costs_no_other_step(self):
        self.status = {"sanitize": "missing", "check": 1}
        self.assertEqual(self.run_all(), 1)
        self.assertEqual(len(self.asked), 4)
        self.assertIn("sanitize: no sanitize", self.errors)

    def test_nothing_follows_a_build_that_failed(self):
        self.status = {"build": 1}
        self.assertEqual(self.run_all(), 1)
        self.assertEqual(len(self.asked), 1)

    def test_resuming_passes_over_what_is_complete(self):
        earlier = self.folder / "earlier"
        checks = [{"name": name, "cases": 20, "leftOut": 40} for name in steps.CHECK_NAMES]
        write_json(earlier / "check.json", {"sources": digest_sources(), "checks": checks})
        self.assertEqual(self.run_all("--resume", str(earlier)), 0)
        self.assertEqual([name for name, _ in self.asked], ["build", "sanitize", "bench"])
        self.assertEqual(self.asked[1][1].resume, earlier / "sanitize.json")
        self.assertEqual(self.asked[2][1].resume, earlier / "bench.json")
        self.assertEqual(read_json(self.folder / "out" / "check.json")["checks"], checks)
        # Of other sources, or with too few cases, nothing is taken up.
        for change in ({"sources": "other", "checks": checks}, {"checks": [*checks[1:], {"cases": 3, "leftOut": 1}]}):
            write_json(earlier / "check.json", {"sources": digest_sources(), **change})
            self.asked.clear()
            self.run_all("--resume", str(earlier))
            self.assertIn("check", [name for name, _ in self.asked])


class SanitizeTest(unittest.TestCase):
    """compute-sanitizer as a program that calls what it is given, or does not."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.addCleanup(setattr, steps, "_driver", steps._driver)
        self.addCleanup(os.environ.__setitem__, "PATH", os.environ["PATH"])
        os.environ["PATH"] = f"{self.folder}:{os.environ['PATH']}"

    def sanitize(self, tool, *argv, failures=()):
        """`tool`: what the program does; `"$@"` is the check."""
        program = self.folder / "compute-sanitizer"
        program.write_text(f'#!/bin/sh\nwhile [ "$1" != "${{1#--}}" ]; do shift 2; done\n{tool}\n')
        program.chmod(0o755)
        result = json.dumps({"checks": [{"failures": list(failures)}]})
        steps._driver = lambda *options: ["sh", "-c", f"echo '{result}' > \"$0\"", options[-1]]
        from run import parse

        arguments = parse(["sanitize", "--json", str(self.folder / "s.json"), "--tool", "memcheck", *argv])
        arguments.log = self.folder / "log"
        with contextlib.redirect_stdout(io.StringIO()):
            status = arguments.run(arguments)
        return status, {run["status"] for run in read_json(self.folder / "s.json")["runs"]}

    def test_what_the_tool_and_the_check_say(self):
        self.assertEqual(self.sanitize('"$@"'), (0, {"clean"}))
        self.assertEqual(self.sanitize('"$@"; exit 9'), (1, {"found something"}))
        self.assertEqual(self.sanitize('"$@"; exit 9', failures=[{}]), (1, {"check failed"}))
        self.assertEqual(self.sanitize("exit 255"), (1, {"broke off with exit code 255"}))
        self.assertEqual(self.sanitize("exit 0"), (1, {"broke off with exit code 0"}))

    def test_nothing_runs_after_its_time_and_what_is_known_is_kept(self):
        self.assertEqual(self.sanitize('"$@"', "--seconds", "5"), (0, {"not run"}))
        self.assertEqual(self.sanitize('"$@"', "--resume", str(self.folder / "s.json")), (0, {"clean"}))
        known = str(self.folder / "known.json")
        write_json(known, read_json(self.folder / "s.json"))
        self.assertEqual(self.sanitize("exit 9", "--resume", known), (0, {"clean"}))
        write_json(known, read_json(known) | {"sources": "other"})
        self.assertEqual(self.sanitize('"$@"; exit 9', "--resume", known), (1, {"found something"}))

    def test_processes_are_broken_off(self):
        steps_seconds, steps.SANITIZED_SECONDS = steps.SANITIZED_SECONDS, 11
        self.addCleanup(setattr, steps, "SANITIZED_SECONDS", steps_seconds)
        bounded = steps.run_bounded
        self.addCleanup(setattr, steps, "run_bounded", bounded)
        asked = []
        steps.run_bounded = lambda _command, seconds, _log: asked.append(seconds)
        self.assertEqual(self.sanitize(":"), (0, {"out of time"}))
        self.assertEqual(set(asked), {11})


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class BoundedTest(unittest.TestCase):
    COMMAND = ["sh", "-c", "echo started; (sleep 60; echo late) & echo $!; wait"]

    def expect_dead(self, pid):
        """The kernel takes a moment to bury it."""
        end = time.monotonic() + 30
        while is_alive(pid):
            self.assertLess(time.monotonic(), end, "a process that was to be killed is alive")
            os.sched_yield()

    def test_processes_end_in_time_with_those_they_started(self):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            self.assertIsNone(steps.run_bounded(self.COMMAND, 1, log))
            started, child = log.read_text().split()
            self.assertEqual(started, "started")
            self.expect_dead(child)
            self.assertEqual(steps.run_bounded(["sh", "-c", "exit 7"], 60), 7)

    def test_they_end_with_the_driver(self):
        program = (
            "import sys, run, steps\n"
            f"steps.list_cases = lambda _: steps.run_bounded({self.COMMAND}, 60)\n"
            'sys.exit(run.main(["list"]))'
        )
        environment = os.environ | {"PYTHONPATH": sys.path[1]}
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
        with process:
            self.assertEqual(process.stdout.readline(), "started\n")
            child = process.stdout.readline().strip()
            process.terminate()
            self.assertEqual(process.wait(30), 143)
        self.expect_dead(child)


if __name__ == "__main__":
    unittest.main()
