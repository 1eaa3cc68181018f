"""The machine: its programs, its device, and processes that end in time."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build-verify"
LIBRARY = BUILD / "cuda" / "libfdq_cuda.so"
ORACLE = BUILD / "libfdq_oracle.so"
FAILED, MISSING = 1, 3


class Missing(Exception):
    """The machine lacks something; the message names it."""


def find_program(name, why):
    """On PATH, or beside this Python: CMake may be one of its packages."""
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise Missing(f"Expected {name} on PATH ({why}) but found none.")
    return path


def find_cuda_program(name, why):
    """In the CUDA toolkit that CUDA_HOME or CUDA_PATH names, in the usual one, or on PATH."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(home) / folder for home in homes if home for folder in ("bin", "compute-sanitizer")]
    found = next((str(folder / name) for folder in folders if (folder / name).is_file()), None)
    return found or find_program(name, f"or CUDA_HOME; {why}")


def run_bounded(command, seconds, log=None):
    """The exit status, or None where the process had to be killed after `seconds`, with those it started."""
    output = None if log is None else open(log, "ab")
    try:
        errors = None if output is None else subprocess.STDOUT
        # A signal that ends the driver waits until there is a process to end with it.
        unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

        def begin():
            os.setpgrp()
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)

        try:
            process = subprocess.Popen(command, stdout=output, stderr=errors, preexec_fn=begin)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
            raise
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
            return process.wait(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        if output is not None:
            output.close()


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
    capability = f"{device.info.major}.{device.info.minor}"
    if device.is_emulated:
        return {"name": "emulator", "capability": capability}
    import torch

    return {
        "name": torch.cuda.get_device_name(),
        "capability": capability,
        "multiprocessors": device.info.multiprocessors,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
