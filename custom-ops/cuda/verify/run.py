"""Proves and measures the CUDA kernels on a machine with a GPU, nvcc, CMake and PyTorch, without Node or a network.

    python3 custom-ops/cuda/verify/run.py build      # libfdq_cuda.so and the oracle, into build-verify
    python3 custom-ops/cuda/verify/run.py check      # every kernel against the oracle or float64
    python3 custom-ops/cuda/verify/run.py sanitize   # a few cases under compute-sanitizer
    python3 custom-ops/cuda/verify/run.py bench      # speeds, as JSON and Markdown
    python3 custom-ops/cuda/verify/run.py all --out DIR --budget SECONDS    # these four, in this order
    python3 custom-ops/cuda/verify/run.py list       # what would be measured; needs no GPU

Each ends within ten minutes, or within --seconds, and writes what it has found after every case. `all --resume DIR`
goes on where an earlier `all` of the same sources stopped. `check --library FILE` takes a library that was built for
the emulator (npm test builds one) and needs no GPU. Exit codes: 0, 1 where something failed, 2 for wrong arguments, 3
without a GPU, a compiler or PyTorch.
"""

import argparse
import signal
import sys

sys.dont_write_bytecode = True

import steps
from machine import FAILED, MISSING, Missing


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build")
    builder.add_argument("--oracle-only", action="store_true", help="no nvcc: for use with the emulator")
    builder.add_argument("--nvcc-flags", default="", help="flags for nvcc, separated by semicolons")
    builder.add_argument("--seconds", type=float, default=540, help="it is broken off after this")
    builder.add_argument("--log", help="write what the compilers print to this file")
    builder.set_defaults(run=steps.build)
    _add_check(commands.add_parser("check"))
    sanitizer = commands.add_parser("sanitize")
    sanitizer.add_argument("--tool", action="append", choices=steps.SANITIZERS)
    sanitizer.add_argument("--cases", type=int, default=3, help="random cases of each check")
    sanitizer.add_argument("--seed", type=int, default=1)
    sanitizer.add_argument("--seconds", type=float, default=540, help="nothing runs after this")
    sanitizer.add_argument("--json", help="write the results to this file")
    sanitizer.add_argument("--resume", help="take up the runs of this earlier file")
    sanitizer.add_argument("--log", help="write what the tools print to this file")
    sanitizer.set_defaults(run=steps.sanitize)
    _add_bench(commands.add_parser("bench"))
    everything = commands.add_parser("all")
    everything.add_argument("--out", required=True, help="the folder of all results")
    everything.add_argument("--budget", type=float, default=570, help="seconds for all steps together")
    everything.add_argument("--resume", help="a folder of earlier results; that of --out where it is not given")
    everything.add_argument("--nvcc-flags", default="", help="flags for nvcc, separated by semicolons")
    everything.set_defaults(run=lambda arguments: steps.run_all(arguments, parse))
    lister = commands.add_parser("list")
    lister.add_argument("--json", action="store_true", help="with bars, as JSON")
    lister.set_defaults(run=steps.list_cases)
    return parser.parse_args(argv)


def _add_check(checker):
    checker.add_argument("--library", help="a library that was built for the emulator")
    checker.add_argument("--kernel", choices=steps.CHECK_NAMES, help="only this check")
    checker.add_argument("--cases", type=int, default=60, help="random cases of each check")
    checker.add_argument("--seed", type=int, default=1)
    checker.add_argument("--small", action="store_true", help="small shapes")
    checker.add_argument("--exact", action="store_true", help="no guard zones: memcheck sees where each buffer ends")
    checker.add_argument("--seconds", type=float, default=540, help="no case starts after this")
    checker.add_argument("--patience", type=float, default=60, help="seconds after which a case counts as hanging")
    checker.add_argument("--json", help="write the results to this file")
    checker.set_defaults(run=steps.check)


def _add_bench(bencher):
    bencher.add_argument("--only", help="only cases whose description holds this text")
    bencher.add_argument("--seconds", type=float, default=540, help="no case starts after this")
    bencher.add_argument("--json", help="write the results to this file")
    bencher.add_argument("--markdown", help="write them to this file as a table, too")
    bencher.add_argument("--resume", help="take up the rows of this earlier file")
    bencher.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    bencher.set_defaults(run=steps.bench)


def main(argv):
    arguments = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends, too
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
