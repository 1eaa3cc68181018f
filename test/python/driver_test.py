"""What custom-ops/cuda/verify/run.py starts, watches and ends, without a device."""

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
from unittest import mock

from support import Patient

import steps
from results import BenchResults, digest_sources, read_json, write_json
from shapes import CASES


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
        with mock.patch.object(time, "monotonic", return_value=0):
            self.assertEqual(self.run_all("--budget", "500"), 0)
        self.assertEqual([name for name, _ in self.asked], ["build", "check", "sanitize", "bench"])
        seconds = [options.seconds for _, options in self.asked]
        self.assertEqual(seconds[0], 400)
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
        self.asked = self.folder / "asked"
        note = f'echo "$@" >"{self.asked}"'
        program.write_text(f'#!/bin/sh\n{note}\nwhile [ "$1" != "${{1#--}}" ]; do shift 2; done\n{tool}\n')
        program.chmod(0o755)
        result = json.dumps({"checks": [{"failures": list(failures)}]})
        steps._driver = lambda *options: ["sh", "-c", f"echo '{result}' > \"$0\"", options[-1], *map(str, options)]
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

    def test_the_tool_sees_the_ends_of_buffers_and_no_calls_of_pytorch(self):
        self.sanitize('"$@"')
        asked = self.asked.read_text()
        self.assertIn("--report-api-errors no", asked)
        self.assertIn("--launch-timeout 0", asked)  # importing PyTorch may take longer than the tool waits
        self.assertIn("--small --exact", asked)

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

            class Started(subprocess.Popen):
                """Its time begins when it has said what it has to say."""

                def wait(self, timeout=None):
                    while len(log.read_text().split()) < 2:
                        os.sched_yield()
                    return super().wait(timeout)

            with mock.patch.object(subprocess, "Popen", Started):
                self.assertIsNone(steps.run_bounded(self.COMMAND, 1, log))
            started, child = log.read_text().split()
            self.assertEqual(started, "started")
            self.expect_dead(child)
            self.assertEqual(steps.run_bounded(["sh", "-c", "exit 7"], 60), 7)

    def test_they_end_with_the_driver(self):
        """Even one that is told to end before Popen returned: the latest moment that could lose the process."""
        program = (
            "import os, signal, subprocess, sys, run, steps\n"
            "class Slow(subprocess.Popen):\n"
            "    def __init__(self, *args, **options):\n"
            "        super().__init__(*args, **options)\n"
            "        while signal.SIGTERM not in signal.sigpending(): os.sched_yield()\n"
            "subprocess.Popen = Slow\n"
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
