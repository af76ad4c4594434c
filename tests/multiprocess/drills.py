"""Runs train_small.py under `hpcore run` with faults; what the recovery tests share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "scripts"
PATIENCE_S = 100.0


@dataclass
class Outcome:
    """How a job ended."""

    code: int
    output: str
    folder: Path

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of that name with those fields."""
        with (self.folder / "logs" / "events.jsonl").open() as lines:
            found = [json.loads(line) for line in lines]
        return [
            event
            for event in found
            if event["event"] == name and all(event.get(k) == v for k, v in fields.items())
        ]

    def ranks(self) -> list[dict[str, Any]]:
        """What each rank wrote at its end, by rank."""
        paths = sorted(self.folder.glob("rank*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def results(self) -> list[dict[str, Any]]:
        """What must not depend on faults, by rank."""
        return [rank["result"] for rank in self.ranks()]

    def story(self) -> str:
        """For messages of failing tests."""
        told = [
            {k: v for k, v in event.items() if k not in ("samples", "sums", "members", "argv")}
            for name in ("fault_injected", "death", "hang", "mail", "roster", "heal", "stop")
            for event in self.events(name)
        ]
        told.sort(key=lambda event: event["ns"])
        return "\n".join([self.output[-3000:], *(json.dumps(event)[:600] for event in told)])


def train(
    folder: Path,
    *faults: str,
    script: str = "train_small.py",
    nproc: int = 3,
    standbys: int = 1,
    steps: int = 12,
    options: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
    agent: Sequence[str] = ("-m", "hpcore"),
    meanwhile: Callable[[subprocess.Popen[str]], None] = lambda _: None,
) -> Outcome:
    """Runs a script to its end under `hpcore run`; leaves no process behind.

    `agent`: what is run in place of `python -m hpcore`. `meanwhile` is called once with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *agent, "run", f"--nproc={nproc}", f"--standbys={standbys}"]
    command += [f"--log-dir={folder / 'logs'}", *options]
    command += [word for fault in faults for word in ("--inject", fault)]
    command += [str(SCRIPTS / script), str(folder), str(steps), *arguments]
    path = os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        meanwhile(process)
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)  # the workers follow it
        output, _ = process.communicate()
        raise AssertionError(
            f"no end within {PATIENCE_S} s\n{Outcome(-1, output, folder).story()}"
        ) from None
    finally:
        if process.poll() is None:
            process.kill()
    return Outcome(process.returncode, output, folder)


def await_pause(agent: subprocess.Popen[str], folder: Path, ranks: int) -> list[Path]:
    """Until all ranks are in the step that TEST_PAUSE names; returns the files with their pids."""
    paused = [folder / f"paused{rank}" for rank in range(ranks)]
    deadline = time.monotonic() + PATIENCE_S
    while not all(path.exists() for path in paused):
        assert agent.poll() is None and time.monotonic() < deadline, "the ranks do not pause"
        time.sleep(0.005)
    return paused


def kill_all_at_once(agent: subprocess.Popen[str], folder: Path, ranks: int) -> None:
    """Kills the ranks that pause (TEST_PAUSE) before the agent can learn of any, then lets go."""
    paused = await_pause(agent, folder, ranks)
    agent.send_signal(signal.SIGSTOP)
    for path in paused:
        os.kill(int(path.read_text()), signal.SIGKILL)
    (folder / "go").touch()
    agent.send_signal(signal.SIGCONT)
