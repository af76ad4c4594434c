"""tests/conftest.py fails a test that leaves something behind, and ends what it left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_guarded(folder: Path, body: str) -> str:
    """pytest's output for a test with this body, under a copy of the suite's conftest.py."""
    tests = folder / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tests / "test_one.py").write_text(f"import os, subprocess, sys\ndef test_one():\n{body}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python"), "HPCORE_TEST_GRACE_S": "0.3"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize(
    "start",
    [
        "subprocess.Popen(['sleep', '55.5'])",
        "subprocess.run(['sh', '-c', 'setsid sleep 55.5 >/dev/null 2>&1 & exit 0'])",
    ],
    ids=["child", "orphan"],
)
def test_guard_ends_and_names_processes(tmp_path: Path, start: str) -> None:
    output = run_guarded(tmp_path, f"    {start}")
    assert "the test left processes: " in output
    pid, _, command = (
        output.partition("the test left processes: ")[2].splitlines()[0].partition(": ")
    )
    assert command == "sleep 55.5"
    status = Path("/proc", pid, "stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_guard_names_memory_files(tmp_path: Path) -> None:
    output = run_guarded(tmp_path, "    os.memfd_create('hpcore-probe')")
    assert "1 x fd /memfd:hpcore-probe" in output


def test_guard_lets_clean_tests_pass(tmp_path: Path) -> None:
    body = "    os.close(os.memfd_create('hpcore-probe'))\n    subprocess.run(['true'])"
    assert "1 passed" in run_guarded(tmp_path, body)
