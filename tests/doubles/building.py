"""Builds the loopback doubles of vendors' libraries from the sources beside this file, once.

``library("nccl")`` and ``library("cuda")`` give the path of a double, ``tiny_library`` one of a few
lines, such as a version that is too old. What a double does
and which faults it knows stands at the top of its source. A library loaded by a process obeys
``fault`` of the same process; others get ``LOOPBACK_FAULTS`` in their environment.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILT = HERE.parents[1] / "build" / "doubles"
_FLAGS = ["-std=c++20", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"]


def library(name: str) -> str:
    """The path of the double of libcuda ("cuda") or libnccl ("nccl"); skips without a compiler."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler to build the loopback doubles with")
    sources = sorted([*HERE.glob("*.cpp"), *HERE.glob("*.hpp")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources) + compiler.encode())
    folder = BUILT / digest.hexdigest()[:16]
    target = folder / f"lib{name}_loopback.so"
    if target.exists():
        return str(target)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(compiler, "cuda", folder, [])
        beside = ["-Wl,--no-as-needed", f"-L{folder}", "-l:libcuda_loopback.so"]
        _build(compiler, "nccl", folder, [*beside, "-Wl,-rpath,$ORIGIN"])
    return str(target)


def _build(compiler: str, name: str, folder: Path, more: list[str]) -> None:
    target = folder / f"lib{name}_loopback.so"
    if target.exists():
        return
    new = folder / f".new-{name}.so"
    source = HERE / f"lib{name}_loopback.cpp"
    subprocess.run(
        [compiler, *_FLAGS, str(source), "-o", str(new), f"-Wl,-soname,{target.name}", *more],
        check=True,
        timeout=120,
    )
    new.rename(target)


def fault(name: str, which: str, value: int) -> None:
    """Sets a fault of the double ("cuda", "nccl") that this process has loaded."""
    assert ctypes.CDLL(library(name)).loopback_fault(which.encode(), ctypes.c_long(value)) == 0


def tiny_library(folder: Path, code: str) -> str:
    """A library of a few lines of C, such as one that is too old."""
    compiler = shutil.which("cc") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no compiler to build a false library with")
    source = folder / "tiny.c"
    source.write_text(code if not compiler.endswith("++") else f'extern "C" {{ {code} }}')
    target = folder / "libtiny.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return str(target)
