"""What all tests share: a test's kind by its folder, skips with a reason, a guard against leaks.

The guard looks, after each test, for processes that the test started and left (direct children, and
any process that carries the test's mark in its environment) and for hpcore's memory files that this
process still holds. Whatever is left is ended or named, and the test fails: the next starts clean.
"""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import os
import signal
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("unit", "contract", "sim", "multiprocess", "multinode", "gpu")
MARK = "HPCORE_TEST_MARK"
FAILED = pytest.StashKey[bool]()
GRACE_S = float(os.environ.get("HPCORE_TEST_GRACE_S", "3"))
"""How long processes may take to be gone after a test has ended."""

_BYSTANDERS = ("resource_tracker", "forkserver")
"""Helper processes of Python's multiprocessing: they live as long as pytest, by design."""


def pytest_configure(config: pytest.Config) -> None:
    paths = [str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys(os.pathsep.join(paths).split(os.pathsep))
    )
    for kind in KINDS:
        config.addinivalue_line("markers", f"{kind}: a test of tests/{kind}")
    config.addinivalue_line("markers", "torch: needs torch and the _c10d module")
    config.addinivalue_line(
        "markers", "keeps_memory: leaves hpcore's memory mapped in pytest, on purpose"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _why_no_torch() if any(item.get_closest_marker("torch") for item in items) else None
    for item in items:
        folder = (
            item.path.relative_to(ROOT / "tests").parts[0]
            if item.path.is_relative_to(ROOT / "tests")
            else ""
        )
        if folder in KINDS:
            item.add_marker(getattr(pytest.mark, folder))
        if missing and item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason=missing))
        if folder == "gpu" and not Path("/dev/nvidiactl").exists():
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))


def _why_no_torch() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: make install"
    from hpcore import _torch_choice, errors

    try:
        _torch_choice.native_module(importlib.metadata.version("torch"))
    except errors.WrongTorch as error:
        return str(error)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True  # its traceback holds the test's objects
    return report


@pytest.fixture(autouse=True)
def leak_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test that leaves a process or a memory file behind; ends the processes."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    before = _memory_files()
    children = _children()
    os.environ[MARK] = mark
    yield
    os.environ.pop(MARK, None)
    left = _wait_gone(mark, children)
    for pid, what in left.items():
        _end(pid)
        left[pid] = f"{pid}: {what}"
    request.node.funcargs.clear()  # pytest would hold the fixtures' values until after this check
    kept = _memory_files() - before
    if kept:
        gc.collect()
        kept = _memory_files() - before
    if left:
        pytest.fail("the test left processes: " + "; ".join(left.values()), pytrace=False)
    held = request.node.stash.get(FAILED, False) or request.node.get_closest_marker("keeps_memory")
    if kept and not held:
        names = ", ".join(f"{count} x {name}" for name, count in kept.items())
        pytest.fail(f"the test left memory files open or mapped: {names}", pytrace=False)


def _memory_files() -> Counter[str]:
    """hpcore's memory files that this process has open ("fd ...") or mapped ("map ...")."""
    found: Counter[str] = Counter()
    for entry in os.scandir("/proc/self/fd"):
        try:
            target = os.readlink(entry.path)
        except OSError:
            continue
        if target.startswith("/memfd:hpcore"):
            found["fd " + target.split()[0]] += 1
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "/memfd:hpcore" in line:
                found["map " + line.split(maxsplit=5)[5].split()[0]] += 1
    return found


def _stat(pid: str) -> tuple[str, int] | None:
    """State letter and parent of a process; None if it is gone."""
    try:
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def _children() -> set[int]:
    me = os.getpid()
    pids = (entry for entry in os.listdir("/proc") if entry.isdigit())
    return {int(pid) for pid in pids if (stat := _stat(pid)) and stat[1] == me}


def _living(mark: str, known: set[int]) -> dict[int, str]:
    """Processes of this test that still run, with their command lines."""
    needle = f"{MARK}={mark}".encode()
    found = {}
    for pid in (entry for entry in os.listdir("/proc") if entry.isdigit()):
        stat = _stat(pid)
        if stat is None or stat[0] in "ZX" or int(pid) in known or int(pid) == os.getpid():
            continue
        try:
            if stat[1] != os.getpid() and needle not in Path("/proc", pid, "environ").read_bytes():
                continue
            command = (
                Path("/proc", pid, "cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode(errors="replace")
            )
        except OSError:
            continue
        if not any(name in command for name in _BYSTANDERS):
            found[int(pid)] = command.strip()[:160]
    return found


def _wait_gone(mark: str, known: set[int]) -> dict[int, str]:
    deadline = time.monotonic() + GRACE_S
    while True:
        left = _living(mark, known)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError, PermissionError):
        pass
