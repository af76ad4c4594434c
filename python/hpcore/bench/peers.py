"""Runs the drivers of bench/peers in an environment that has the peers, and reads their result
lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hpcore
from hpcore.errors import NotFound


@dataclass(frozen=True)
class PeerRun:
    """One driver with one setting. `victim` 0: the rank that hosts the peer's store is killed."""

    peer: str
    setting: str
    kills: int
    victim: int = -1

    @property
    def name(self) -> str:
        """What the table calls it: torchft for its default setting, torchft/best."""
        return self.peer if self.setting == "default" else f"{self.peer}/{self.setting}"


@dataclass
class PeerResult:
    """Seconds from kill to commit of one peer; `failure` if some kills were not survived."""

    name: str
    rank0: bool
    note: str = ""
    failure: str = ""
    samples_s: list[float] = field(default_factory=list)


def all_peers(kills: int) -> list[PeerRun]:
    """Every peer by default and at its best, and without its rank 0."""
    runs = [PeerRun("torchft", s, kills) for s in ("default", "best", "warm", "hot-spare")]
    runs += [PeerRun("nvrx", s, kills) for s in ("default", "best")]
    runs += [PeerRun("torchrun", s, kills) for s in ("default", "best")]
    return [*runs, PeerRun("nvrx", "best", 1, victim=0), PeerRun("torchrun", "best", kills, 0)]


def run_peers(
    runs: Sequence[PeerRun], python: str, state_mib: int, say: Callable[[str], None]
) -> list[PeerResult]:
    """Runs the drivers one after the other.

    Raises NotFound if there is no checkout with bench/peers.
    """
    if not runs:
        return []
    folder = Path(hpcore.__file__).resolve().parents[2] / "bench" / "peers"
    if not folder.is_dir():
        raise NotFound(f"--peers needs a checkout: there is no {folder}")
    return [_run(folder, run, python or sys.executable, state_mib, say) for run in runs]


def _run(
    folder: Path, run: PeerRun, python: str, state_mib: int, say: Callable[[str], None]
) -> PeerResult:
    victim = "rank 0" if run.victim == 0 else "any other rank"
    say(f"{run.name}: {run.kills} kills of {victim}")
    result = PeerResult(run.name, run.victim == 0)
    with tempfile.TemporaryDirectory(prefix="hpcore-peer-") as scratch:
        command = [
            *(python, str(folder / f"{run.peer}_peer.py"), "--setting", run.setting),
            *("--kills", str(run.kills), "--victim", str(run.victim)),
            *("--state-mib", str(state_mib), "--run-dir", scratch),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        output, errors = process.communicate(timeout=300 + 200 * run.kills)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    result.samples_s = [x["kill_to_commit_s"] for x in lines if x["kill_to_commit_s"] is not None]
    lost = len(lines) - len(result.samples_s)
    if lost:
        reasons = {x["failure"] for x in lines if x["kill_to_commit_s"] is None}
        result.failure = f"{run.name} ({victim}): {lost} of {len(lines)}: {', '.join(reasons)}"
        result.note = f"{lost} of {len(lines)} kills were not survived"
    elif not lines:
        last = errors.strip().splitlines()[-1:] or ["it printed nothing"]
        result.failure = f"{run.name} could not be run with {python}: {last[0]}"
    for x in lines:
        say(f"  {x['kill_to_commit_s']} s" if x["kill_to_commit_s"] else f"  {x['failure']}")
    return result
