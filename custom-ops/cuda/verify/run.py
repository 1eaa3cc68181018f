"""Proves and measures the CUDA kernels on a machine with a GPU, nvcc, CMake and PyTorch, without Node or a network.

    python3 custom-ops/cuda/verify/run.py build      # libfdq_cuda.so and the oracle, into build-verify
    python3 custom-ops/cuda/verify/run.py check      # every kernel against the oracle or float64
    python3 custom-ops/cuda/verify/run.py sanitize   # a few cases under compute-sanitizer
    python3 custom-ops/cuda/verify/run.py bench      # speeds, as JSON and Markdown
    python3 custom-ops/cuda/verify/run.py list       # what would be measured; needs no GPU

Each ends within ten minutes. `check --library FILE` takes a library that was built for the emulator (npm test builds
one) and needs no GPU. Exit codes: 0, 1 where something failed, 2 for wrong arguments, 3 without a GPU, a compiler or
PyTorch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build-verify"
LIBRARY = BUILD / "cuda" / "libfdq_cuda.so"
ORACLE = BUILD / "libfdq_oracle.so"
CHECK_NAMES = (
    *("repack_weight", "quantize_weight", "quantize_activations", "convert_activations"),
    *("fp8_linear", "weight_only_linear"),
    *("large products", "batch invariance"),
)
SANITIZERS = ("memcheck", "racecheck", "synccheck")
FAILED, MISSING = 1, 3


class Missing(Exception):
    """The machine lacks something; the message names it."""


def find_program(name, why):
    path = shutil.which(name)
    if path is None:
        raise Missing(f"Expected {name} on PATH ({why}) but found none.")
    return path


def find_nvcc():
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    files = [Path(home) / "bin" / "nvcc" for home in homes if home]
    found = next((str(file) for file in files if file.exists()), None)
    return found or find_program("nvcc", "or CUDA_HOME; it compiles the kernels")


def build(arguments):
    cmake = find_program("cmake", "it builds the kernels")
    options = [f"-DFDQ_VERIFY_KERNELS={'OFF' if arguments.oracle_only else 'ON'}"]
    if not arguments.oracle_only:
        options += [f"-DFDQ_NVCC={find_nvcc()}", f"-DFDQ_NVCC_FLAGS={arguments.nvcc_flags}"]
    started = time.monotonic()
    for command in (
        [cmake, "-S", str(HERE), "-B", str(BUILD), *options],
        [cmake, "--build", str(BUILD), "--parallel", str(os.cpu_count())],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout, end="")
            print(f"Building failed: {' '.join(command)}", file=sys.stderr)
            return FAILED
    print(f"Built {BUILD} in {time.monotonic() - started:.0f} s.")
    return 0


def open_device(library_file):
    """The device and the oracle; torch is imported here, so that `build` and `list` do without it."""
    try:
        import torch
    except ImportError as error:
        raise Missing(f"Expected PyTorch in {sys.executable} but could not import it: {error}.") from error
    from kernels import Device
    from library import Library, Oracle

    is_emulated = library_file is not None
    if not is_emulated:
        if not torch.cuda.is_available():
            raise Missing(
                "Expected a CUDA device but PyTorch finds none. On a machine without one, `check --library FILE` runs "
                "a library that was built for the emulator."
            )
        torch.zeros(1, device="cuda")  # creates the context that the library uses
    oracle = Oracle(ORACLE)
    return Device(Library(library_file or LIBRARY, oracle), "cpu" if is_emulated else "cuda"), oracle


def describe_device(device):
    if device.is_emulated:
        return {"name": "emulator", "capability": f"{device.info.major}.{device.info.minor}"}
    import torch

    return {
        "name": torch.cuda.get_device_name(),
        "capability": f"{device.info.major}.{device.info.minor}",
        "multiprocessors": device.info.multiprocessors,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def write_json(path, result):
    if path is not None:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")


def check(arguments):
    if arguments.kernel is not None:
        return check_one(arguments)
    # A process each: a kernel that breaks or hangs takes its process along.
    results, device, outcome = [], None, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in CHECK_NAMES:
            file = Path(folder) / "result.json"
            command = [sys.executable, __file__, "check", "--kernel", name, "--json", str(file)]
            command += ["--cases", str(arguments.cases), "--seed", str(arguments.seed)]
            command += ["--small"] if arguments.small else []
            command += [] if arguments.library is None else ["--library", arguments.library]
            status = subprocess.run(command, check=False).returncode
            if status == MISSING:
                return MISSING
            if file.exists():
                result = json.loads(file.read_text())
                device, results = result["device"], results + result["checks"]
                file.unlink()
            else:
                print(f"{name} broke off (exit code {status}).", flush=True)
                broken = [{"error": f"broke off with exit code {status}"}]
                results.append({"name": name, "cases": len(broken), "failures": broken, "worst_rms": 0.0})
            outcome = outcome or (0 if status == 0 else FAILED)
    write_json(arguments.json, {"device": device, "checks": results})
    return outcome


def check_one(arguments):
    device, oracle = open_device(arguments.library)
    from checks import FULL, SMALL, run_checks

    limits = SMALL if arguments.small else FULL
    result = run_checks(device, oracle, arguments.kernel, arguments.cases, arguments.seed, limits)
    write_json(arguments.json, {"device": describe_device(device), "checks": [result]})
    return FAILED if result["failures"] else 0


def sanitize(arguments):
    sanitizer = find_program("compute-sanitizer", "it is part of the CUDA toolkit")
    outcome = 0
    for tool in arguments.tool or SANITIZERS:
        command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, __file__, "check", "--small"]
        command += ["--cases", str(arguments.cases), "--seed", str(arguments.seed)]
        print(f"{tool}:", flush=True)
        status = subprocess.run(command, check=False).returncode
        if status == MISSING:
            return MISSING
        if status != 0:
            print(f"{tool} found something (exit code {status}).", flush=True)
            outcome = FAILED
    return outcome


def bench(arguments):
    device, _ = open_device(None)
    from bench import measure, to_markdown

    result = {"device": describe_device(device), "rows": measure(device, arguments.only, arguments.seconds)}
    write_json(arguments.json, result)
    print(to_markdown(result))
    return 0


def list_cases(_arguments):
    from shapes import CASES

    for case in CASES:
        print(case.describe())
    return 0


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build")
    builder.add_argument("--oracle-only", action="store_true", help="no nvcc: for use with the emulator")
    builder.add_argument("--nvcc-flags", default="", help="flags for nvcc, separated by semicolons")
    builder.set_defaults(run=build)
    checker = commands.add_parser("check")
    checker.add_argument("--library", help="a library that was built for the emulator")
    checker.add_argument("--kernel", choices=CHECK_NAMES, help="only this check")
    checker.add_argument("--cases", type=int, default=60, help="random cases of each check")
    checker.add_argument("--seed", type=int, default=1)
    checker.add_argument("--small", action="store_true", help="small shapes")
    checker.add_argument("--json", help="write the results to this file")
    checker.set_defaults(run=check)
    sanitizer = commands.add_parser("sanitize")
    sanitizer.add_argument("--tool", action="append", choices=SANITIZERS)
    sanitizer.add_argument("--cases", type=int, default=4)
    sanitizer.add_argument("--seed", type=int, default=1)
    sanitizer.set_defaults(run=sanitize)
    bencher = commands.add_parser("bench")
    bencher.add_argument("--only", help="only cases whose description holds this text")
    bencher.add_argument("--seconds", type=float, default=420, help="no case starts after this")
    bencher.add_argument("--json", help="write the results to this file")
    bencher.set_defaults(run=bench)
    commands.add_parser("list").set_defaults(run=list_cases)
    return parser.parse_args(argv)


def main(argv):
    arguments = parse(argv)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(HERE))
    try:
        return arguments.run(arguments)
    except Missing as error:
        print(error, file=sys.stderr)
        return MISSING
    except Exception as error:
        if type(error).__name__ != "VerifyError":  # of library.py, which is not imported before it is needed
            raise
        print(error, file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
