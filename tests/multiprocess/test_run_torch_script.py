"""A torchrun script with backend "hpcore" under `hpcore run`, whole and with a lost rank."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import Run

SCRIPT = str(Path(__file__).parents[1] / "scripts" / "torchrun_script.py")

pytestmark = pytest.mark.torch


def test_torchrun_script_runs_unchanged_without_tcp(tmp_path: Path) -> None:
    with Run(tmp_path, [SCRIPT], nproc=3, preload=None) as run:
        assert run.finish() == 0, run.stop_reason()
    for rank in range(3):
        lines = run.log(f"rank{rank}").splitlines()
        assert "equal True" in lines
        assert "listening []" in lines
        assert "objects [0, 1, 2]" in lines


def test_lost_rank_raises_in_all_groups_and_ends_the_job(tmp_path: Path) -> None:
    with Run(tmp_path, [SCRIPT, "die"], nproc=3, preload=None) as run:
        assert run.finish() == 128 + 9
    assert "rank 1" in run.stop_reason()
    for rank in (0, 2):  # rank 0 waits in the default group, rank 2 in a group of ranks 1 and 2
        assert "raised RosterChanged" in run.log(f"rank{rank}")
