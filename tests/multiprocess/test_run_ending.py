"""The end of `hpcore run`: signals, a killed agent, a killed template; nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import Run, alive, expected, fake_job, until

from hpcore.agent.events import read_events

ENV = {**os.environ, "HPCORE_PRELOAD": ""}
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True: time.sleep(1)
"""


def start(tmp_path: Path, script: str, nproc: int = 3) -> tuple[subprocess.Popen[str], list[int]]:
    """A running `hpcore run` whose ranks have said 'up', and the pids of all its processes."""
    (tmp_path / "script.py").write_text(script)
    logs = tmp_path / "logs"
    command = [sys.executable, "-m", "hpcore", "run", "--nproc", str(nproc), "--log-dir", str(logs)]
    process = subprocess.Popen(
        [*command, str(tmp_path / "script.py")], env=ENV, stdout=subprocess.DEVNULL, text=True
    )
    paths = [logs / f"rank{rank}.log" for rank in range(nproc)]
    until(lambda: all(p.exists() and "up" in p.read_text() for p in paths), "all ranks up")
    events = list(read_events(logs / "events.jsonl"))
    pids = [event["pid"] for event in events if event["event"] == "spawn"]
    return process, [*pids, events[0]["template"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    process, pids = start(tmp_path, STUBBORN)
    process.send_signal(number)
    began = time.monotonic()
    assert process.wait(30) == 128 + number
    took = time.monotonic() - began
    assert took < 10, "a second on a quiet machine"
    assert not [pid for pid in pids if alive(pid)]


def test_second_signal_kills_at_once(tmp_path: Path) -> None:
    process, pids = start(tmp_path, STUBBORN)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not [pid for pid in pids if alive(pid)]


def test_killed_agent_leaves_nothing(tmp_path: Path) -> None:
    process, pids = start(tmp_path, STUBBORN)
    process.kill()
    process.wait(30)
    until(lambda: not [pid for pid in pids if alive(pid)], "all gone", 30)


def test_killed_template_is_started_again(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(60, 0.02, "1:30:forward:sigkill"), nproc=2) as run:
        run.wait("first_commit")
        os.kill(run.all("start")[0]["template"], signal.SIGKILL)
        assert run.finish() == 0
    assert run.results() == [expected(60)] * 2


def test_template_that_always_dies_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os; os._exit(3)")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}
    with Run(tmp_path / "logs", fake_job(1, 0.0), preload=("deadly",), env=env) as run:
        assert run.finish() != 0
    assert "template" in run.stop_reason()


def test_stop_from_python_ends_the_job(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(100_000, 0.01)) as run:
        run.wait("first_commit")
        run.agent.stop(5, "enough")
        assert run.finish() == 5
    assert run.stop_reason() == "enough"


def test_agent_leaves_no_descriptors_or_threads(tmp_path: Path) -> None:
    import threading

    def once(name: str) -> None:
        with Run(tmp_path / name, fake_job(6, 0.005, "1:3:forward:sigkill"), standbys=1) as run:
            assert run.finish() == 0

    once("warm-up")
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for index in range(3):
        once(str(index))
    assert len(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads
