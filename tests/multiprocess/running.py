"""Runs an Agent in a thread and waits for its events: what the tests of `hpcore run` share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcore.agent.agent import Agent
from hpcore.agent.options import AgentOptions

HERE = Path(__file__).parent
FAKE_JOB = str(HERE / "fake_job.py")
PATIENCE_S = 60.0


def expected(total: int) -> int:
    """The value of fake_job.py after `total` undisturbed steps."""
    value = 1
    for step in range(total):
        value = (value * 31 + step) % 1_000_003
    return value


class Run:
    """One job; a context manager that leaves nothing behind."""

    def __init__(self, log_dir: Path, command: list[str], **options: Any) -> None:
        self.log_dir = log_dir
        self.events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self.code: int | None = None
        self.error: BaseException | None = None
        settings: dict[str, Any] = {"nproc": 2, "preload": (), "terminal": False}
        settings.update(options)
        self.agent = Agent(
            AgentOptions(command=command, log_dir=str(log_dir), on_event=self._on_event, **settings)
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.code = self.agent.run()
        except BaseException as error:
            self.error = error
        with self._news:
            self._news.notify_all()

    def _on_event(self, event: dict[str, Any]) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def __enter__(self) -> Run:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.agent.stop()
            self.agent.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the agent does not end"

    def finish(self) -> int:
        """Waits for the end; the exit code."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"no end; {self.events[-5:]}"
        if self.error is not None:
            raise self.error
        assert self.code is not None
        return self.code

    def wait(self, name: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The `count`-th event of that name with those fields, once it has happened."""
        with self._news:
            ok = self._news.wait_for(
                lambda: len(self.all(name, **fields)) >= count or not self._thread.is_alive(),
                PATIENCE_S,
            )
            found = self.all(name, **fields)
        assert ok, f"no {name} {fields} within {PATIENCE_S} s: {self.events[-5:]}"
        assert len(found) >= count, f"no {name} {fields}; stop: {self.all('stop')}"
        return found[count - 1]

    def all(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of that name with those fields, so far."""
        return [
            event
            for event in self.events
            if event["event"] == name and all(event.get(k) == v for k, v in fields.items())
        ]

    def stop_reason(self) -> str:
        """Why the job ended."""
        return str(self.all("stop")[-1]["reason"])

    def log(self, name: str) -> str:
        """A worker's log."""
        return (self.log_dir / f"{name}.log").read_text()

    def results(self) -> list[int]:
        """The values that fake jobs printed at their end."""
        words = [
            line.split("value=")[1]
            for path in sorted(self.log_dir.glob("*.log"))
            for line in path.read_text().splitlines()
            if line.startswith("done ")
        ]
        return [int(word) for word in words]


def alive(pid: int) -> bool:
    """Whether there is such a process (a zombie is none)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Waits for something that no event tells."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.005)


def fake_job(total: int, step_s: float, *faults: str) -> list[str]:
    """The command of a fake job."""
    assert os.path.exists(FAKE_JOB)
    return [FAKE_JOB, str(total), str(step_s), *faults]
