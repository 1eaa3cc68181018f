"""The steps of run.py. Each ends in time, and keeps what it found in a file as it goes."""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from machine import (
    BUILD,
    FAILED,
    HERE,
    MISSING,
    Missing,
    describe_device,
    find_cuda_program,
    find_program,
    open_device,
    run_bounded,
)
from report import to_markdown
from results import BenchResults, digest_sources, read_json, write_json
from shapes import CASES

CHECK_NAMES = (
    *("repack_weight", "quantize_weight", "quantize_activations", "convert_activations"),
    *("fp8_linear", "weight_only_linear"),
    *("large products", "batch invariance"),
)
SANITIZERS = ("memcheck", "synccheck", "racecheck")  # racecheck is the slowest by far
SANITIZED_SECONDS = 100  # of one check under one tool
SANITIZER_EXIT = 9
UNFINISHED = ("not run", "out of time")
ENOUGH_CASES = 20  # of a check that time ran out for
DEVICE_LOST = 5  # a worker's exit status: a new process has to go on
MOST_WORKERS = 12


def _driver(*arguments):
    return [sys.executable, str(HERE / "run.py"), *(str(argument) for argument in arguments)]


class Clock:
    def __init__(self, seconds):
        self._end = time.monotonic() + seconds

    def left(self):
        return self._end - time.monotonic()


def _open_log(path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def build(arguments):
    cmake = find_program("cmake", "it builds the kernels")
    options = [f"-DFDQ_VERIFY_KERNELS={'OFF' if arguments.oracle_only else 'ON'}"]
    if not arguments.oracle_only:
        nvcc = find_cuda_program("nvcc", "it compiles the kernels")
        options += [f"-DFDQ_NVCC={nvcc}", f"-DFDQ_NVCC_FLAGS={arguments.nvcc_flags}"]
    if shutil.which("make") is None:
        options += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={find_program('ninja', 'or make')}"]
    clock = Clock(arguments.seconds)
    log = _open_log(arguments.log or BUILD / "build.log")
    for command in (
        [cmake, "-S", str(HERE), "-B", str(BUILD), *options],
        [cmake, "--build", str(BUILD), "--parallel", str(os.cpu_count())],
    ):
        status = run_bounded(command, clock.left(), log)
        if status != 0:
            print(log.read_text(errors="replace")[-6000:], end="")
            reason = "it took too long" if status is None else f"exit code {status}"
            print(f"Building failed ({reason}): {' '.join(command)}", file=sys.stderr)
            return FAILED
    warnings = [line for line in log.read_text(errors="replace").split("\n") if "warning" in line.lower()]
    print("".join(f"{line}\n" for line in warnings[:20]), end="")
    print(f"Built {BUILD} in {arguments.seconds - clock.left():.0f} s.", flush=True)
    return 0


def check(arguments):
    if arguments.kernel is not None:
        return check_one(arguments)
    # A process each: a kernel that breaks or hangs takes its process along.
    content = {"device": None, "sources": digest_sources(), "checks": []}
    outcome, clock = 0, Clock(arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(CHECK_NAMES):
            file = Path(folder) / f"{index}.json"
            seconds = clock.left() / (len(CHECK_NAMES) - index)
            options = ["--cases", arguments.cases, "--seed", arguments.seed, "--seconds", int(seconds)]
            options += ["--small"] if arguments.small else []
            options += ["--exact"] if arguments.exact else []
            options += [] if arguments.library is None else ["--library", arguments.library]
            limit = max(10, min(seconds + arguments.patience, clock.left()))
            status = run_bounded(_driver("check", "--kernel", name, "--json", file, *options), limit)
            if status == MISSING:
                return MISSING
            found = read_json(file)
            content["device"] = content["device"] or found.get("device")
            content["checks"] += found.get("checks") or [_broken_check(name)]
            if status not in (0, FAILED) or not found:
                reason = f"exit code {status}" if status is not None else f"no end after {limit:.0f} s"
                content["checks"][-1]["failures"].append({"error": f"broke off: {reason}"})
                print(f"{name} broke off ({reason}).", flush=True)
            outcome = outcome or (0 if status == 0 else FAILED)
            write_json(arguments.json, content)
    return outcome


def _broken_check(name):
    return {"name": name, "cases": 0, "leftOut": 0, "failures": [], "worst_rms": 0.0}


def check_one(arguments):
    if arguments.exact:
        os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # an allocation of the driver for each buffer
    device, oracle = open_device(arguments.library)
    from checks import FULL, SMALL, Plan, run_checks
    from operands import Buffer

    if arguments.exact:
        Buffer.guard_bytes = 0
    described = describe_device(device)

    def keep(result):
        write_json(arguments.json, {"device": described, "checks": [result]})

    limits = SMALL if arguments.small else FULL
    plan = Plan(arguments.cases, arguments.seed, arguments.seconds, arguments.patience)
    result = run_checks(device, oracle, arguments.kernel, limits, plan, keep)
    return FAILED if result["failures"] else 0


def sanitize(arguments):
    """
    Each check under each tool, a process each; only fdq's kernels are looked at, not PyTorch's. Calls that PyTorch
    makes to see what the driver can do fail as they should, and would count as errors.
    """
    sanitizer = find_cuda_program("compute-sanitizer", "it is part of the CUDA toolkit")
    if importlib.util.find_spec("torch") is None:
        raise Missing(f"Expected PyTorch in {sys.executable} but found none.")
    log = _open_log(arguments.log or BUILD / "sanitize.log")
    clock, content = Clock(arguments.seconds), {"sources": digest_sources(), "runs": []}
    earlier = read_json(arguments.resume) if arguments.resume is not None else {}
    known = earlier["runs"] if earlier.get("sources") == content["sources"] else []
    done = {(run["tool"], run["check"]): run for run in known if run["status"] not in UNFINISHED}
    for tool in arguments.tool or SANITIZERS:
        options = ["--tool", tool, "--error-exitcode", str(SANITIZER_EXIT), "--print-limit", "20"]
        options += ["--kernel-name", "kernel_substring=fdq", "--report-api-errors", "no", "--launch-timeout", "0"]
        for name in CHECK_NAMES:
            if (tool, name) in done:
                content["runs"].append(done[tool, name])
                continue
            seconds, started, status = min(clock.left(), SANITIZED_SECONDS), time.monotonic(), "not run"
            if seconds > 10:
                checked = ["--small", "--exact", "--cases", arguments.cases, "--seed", arguments.seed]
                status = _sanitize_one([sanitizer, *options], name, (checked, seconds, log))
            took = round(time.monotonic() - started)
            content["runs"].append({"tool": tool, "check": name, "status": status, "seconds": took})
            print(f"{tool}, {name}: {status} ({took} s)", flush=True)
            write_json(arguments.json, content)
    write_json(arguments.json, content)
    if all(run["status"] in ("clean", *UNFINISHED) for run in content["runs"]):
        return 0
    print(f"What the tools printed is in {log}.", flush=True)
    return FAILED


def _sanitize_one(tool, name, how):
    """What the tool says of a check; whether the check itself passed is in the file that it writes."""
    options, seconds, log = how
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "check.json"
        options = [*options, "--patience", SANITIZED_SECONDS, "--json", file]
        status = run_bounded([*tool, *_driver("check", "--kernel", name, *options)], seconds, log)
        checks = read_json(file).get("checks", [])
    if status is None:
        return "out of time"
    if any(each["failures"] for each in checks):
        return "check failed"
    if status == SANITIZER_EXIT:
        return "found something"
    return "clean" if status == 0 and checks else f"broke off with exit code {status}"


def bench(arguments):
    cases = [case for case in CASES if arguments.only is None or arguments.only in case.describe()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(arguments.json or Path(folder) / "bench.json")
        if arguments.worker:
            return _bench_worker(arguments, path, cases)
        results = BenchResults(path, arguments.resume or folder)
        results.take_up(digest_sources())
        clock = Clock(arguments.seconds)

        def work():
            options = ["--json", path, "--seconds", int(clock.left())]
            options += [] if arguments.only is None else ["--only", arguments.only]
            return run_bounded(_driver("bench", "--worker", *options), clock.left() + 30)

        status = supervise(work, results, cases, clock)
        print(to_markdown(results.content()), flush=True)
        if arguments.markdown is not None:
            Path(arguments.markdown).write_text(to_markdown(results.content()) + "\n")
        return status


def supervise(work, results, cases, clock):
    """
    Runs workers until every case has a row or the time is over. A worker that dies in the middle of a case leaves its
    name behind: that case counts as broken, and the next worker goes on after it.
    """
    status = 0
    for _ in range(MOST_WORKERS):
        if all(results.has(case) for case in cases) or clock.left() < 1:
            break
        before = len(results.rows)
        status = work()
        if status == MISSING:
            return MISSING
        results.reload()
        if results.running is not None:
            kept = next((row for row in results.rows if row["case"] == results.running), {"case": results.running})
            why = {"isLeftOut": True} if status is None else {"error": f"broke off with exit code {status}"}
            results.finish(kept if "microseconds" in kept else kept | why)
        elif len(results.rows) == before:
            break
        if status is None:
            break
    for case in cases:
        if not results.has(case):
            results.update({"case": case.describe(), "isLeftOut": True})
    return FAILED if status not in (0, None, DEVICE_LOST) or any("error" in row for row in results.rows) else 0


def _bench_worker(arguments, path, cases):
    device, _ = open_device(None)
    from bench import measure

    results = BenchResults(path)
    described = describe_device(device)
    if results.device is not None and results.device["name"] != described["name"]:
        was = results.device["name"]
        raise Missing(f"Expected the {was} that {path} was measured on but this machine has a {described['name']}.")
    results.device = described
    return DEVICE_LOST if measure(device, cases, results, Clock(arguments.seconds)) else 0


def is_complete(content):
    """Whether earlier checks of the same sources left nothing to do."""
    checks = content.get("checks", [])
    if content.get("sources") != digest_sources() or len(checks) < len(CHECK_NAMES):
        return False
    return all(each["leftOut"] == 0 or each["cases"] >= ENOUGH_CASES for each in checks)


def run_all(arguments, parse):
    """Builds, checks, sanitizes and measures within the budget; each step's share is of what is left then."""
    out, clock = Path(arguments.out), Clock(arguments.budget)
    out.mkdir(parents=True, exist_ok=True)
    earlier = Path(arguments.resume or out)
    options = parse(["build", "--nvcc-flags", arguments.nvcc_flags, "--log", str(out / "build.log")])
    options.seconds = clock.left() * 0.8
    outcome = build(options)
    if outcome != 0:
        return outcome
    checked = read_json(earlier / "check.json")
    if is_complete(checked):
        print(f"check: complete in {earlier}", flush=True)
        write_json(out / "check.json", checked)
    else:
        options = parse(["check", "--json", str(out / "check.json"), "--seconds", str(int(clock.left() * 0.45))])
        status = _attempt("check", check, options)
        if status == MISSING:
            return MISSING
        outcome = status
    options = parse(["sanitize", "--json", str(out / "sanitize.json"), "--seconds", str(int(clock.left() * 0.5))])
    options.log, options.resume = out / "sanitize.log", earlier / "sanitize.json"
    status = _attempt("sanitize", sanitize, options)
    outcome = outcome or status
    options = parse(["bench", "--json", str(out / "bench.json"), "--seconds", str(int(clock.left() - 15))])
    options.resume, options.markdown = earlier / "bench.json", out / "bench.md"
    status = _attempt("bench", bench, options)
    return outcome or status


def _attempt(name, step, options):
    """What one step lacks must not cost the others."""
    try:
        return step(options)
    except Missing as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return MISSING


def list_cases(arguments):
    if arguments.json:
        print(json.dumps([{"case": case.describe(), "bar": case.bar()} for case in CASES], indent=2))
        return 0
    for case in CASES:
        print(case.describe())
    return 0
