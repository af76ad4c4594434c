"""A torchrun script that knows nothing of hpcore runs unchanged, and fails as under torchrun."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import Run

SCRIPT = str(Path(__file__).parent.parent / "scripts" / "plain_gloo.py")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def test_plain_script_trains(tmp_path: Path) -> None:
    with Run(tmp_path, [SCRIPT], nproc=2, preload=("torch",)) as run:
        assert run.finish() == 0, run.stop_reason()
    logs = [run.log(f"rank{rank}") for rank in range(2)]
    assert [log.count("trained 2") for log in logs] == [1, 1]
    assert logs[0].splitlines()[-1] == logs[1].splitlines()[-1]
    assert len(run.all("roster")) == 1, "init_process_group asks for it"


def test_plain_script_ends_with_the_lost_ranks_code(tmp_path: Path) -> None:
    with Run(tmp_path, [SCRIPT, "die"], nproc=3, standbys=1, preload=("torch",)) as run:
        assert run.finish() == 137
    assert run.stop_reason() == "rank 1 was ended by signal 9"
    assert len(run.all("spawn")) == 3, "no standby for a script without a Job"
