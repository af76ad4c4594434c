"""What the peers' drivers share: arguments, the workload of `hpcore bench recovery`, kills, and the
lines they print.

Each driver starts four ranks, waits until they train, kills one with SIGKILL at a random moment of
a step (the time is stamped just before), and waits for the first step that four ranks commit
afterwards. It prints one JSON object a kill:

    {"peer": "torchft", "setting": "default", "state_mib": 512, "victim": 2, "kill_to_commit_s":
    5.5,
     "survivors_s": 5.0, "step_s": 0.012}

`kill_to_commit_s` is the time to the first step at full strength, less the median step time before
the kill; `survivors_s` the time to the first step that the survivors commit by themselves, where
the peer allows that; a kill that nobody came back from has `kill_to_commit_s` null and a "failure".
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORKLOAD = Path(__file__).resolve().parents[2] / "python" / "hpcore" / "bench"
sys.path.insert(0, str(WORKLOAD))

RANKS = 4


def arguments(peer: str, settings: list[str]) -> argparse.Namespace:
    """The command line of all drivers; `--worker` is how a driver starts itself as a rank."""
    parser = argparse.ArgumentParser(description=f"kill -> next committed step of {peer}")
    parser.add_argument("--setting", choices=settings, default=settings[0])
    parser.add_argument("--state-mib", type=int, default=512)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--victim", type=int, default=-1, help="rank to kill; -1: any but rank 0")
    parser.add_argument(
        "--give-up", type=float, default=60.0, help="seconds to wait for a recovery"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def worker_command(options: argparse.Namespace) -> list[str]:
    """This driver's own command line as a worker."""
    return [
        *(str(Path(sys.argv[0]).resolve()), "--worker", "--setting", options.setting),
        *("--state-mib", str(options.state_mib), "--run-dir", str(options.run_dir)),
    ]


class Events:
    """Reads the events that workers append, from where it last stopped."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._file = path.open()
        self._rest = ""
        self.all: list[dict[str, Any]] = []

    def poll(self) -> list[dict[str, Any]]:
        """New events; also kept in `all`."""
        self._rest += self._file.read()
        *lines, self._rest = self._rest.split("\n")
        fresh = [json.loads(line) for line in lines]
        self.all += fresh
        return fresh

    def wait(
        self, matches: Callable[[dict[str, Any]], bool], timeout_s: float
    ) -> Iterator[dict[str, Any]]:
        """Yields each new event that matches until the time is over."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            yield from filter(matches, self.poll())
            time.sleep(0.0005)

    def first(
        self, matches: Callable[[dict[str, Any]], bool], timeout_s: float
    ) -> dict[str, Any] | None:
        """The first new event that matches, or None when the time is over."""
        return next(self.wait(matches, timeout_s), None)


def step_time_s(events: list[dict[str, Any]], last: int = 50) -> float:
    """Median time between commits that one worker reported last."""
    by_pid: dict[int, list[int]] = {}
    for event in events:
        if event["event"] == "commit":
            by_pid.setdefault(event["pid"], []).append(event["ns"])
    stamps = max(by_pid.values(), key=len)[-last:]
    return statistics.median(b - a for a, b in itertools.pairwise(stamps)) / 1e9


def kill(pid: int, step_s: float, rng: random.Random) -> int:
    """SIGKILLs a process at a random moment of a step; the time just before, in nanoseconds."""
    time.sleep(rng.uniform(0, 3 * step_s))
    at = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    return at


def report(peer: str, options: argparse.Namespace, **fields: Any) -> None:
    """Prints one result line."""
    line = {"peer": peer, "setting": options.setting, "state_mib": options.state_mib, **fields}
    print(json.dumps(line), flush=True)


def end(processes: list[subprocess.Popen[bytes]], events: Events | None = None) -> None:
    """Ends whatever of these, of their process groups, and of the workers that wrote `events` still
    lives.
    """
    for pid in {event["pid"] for event in events.all} if events else ():
        _end_worker(pid)
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _end_worker(pid: int) -> None:
    """Kills a process if it still is a worker of this driver."""
    try:
        if Path(sys.argv[0]).name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass  # gone


def environment(options: argparse.Namespace, **extra: str) -> dict[str, str]:
    """A worker's environment: one thread, and where it writes its events."""
    events = str(options.run_dir / "events.jsonl")
    return {**os.environ, "OMP_NUM_THREADS": "1", "PEER_EVENTS": events, **extra}


def free_port() -> int:
    """A TCP port that nobody uses now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
