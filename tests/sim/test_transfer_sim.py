"""Transfer plans in random jobs. Replay: `HPCORE_SIM_SEED=123 pytest
tests/sim/test_transfer_sim.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from transfer_sim import Transfer

SEEDS = [int(os.environ["HPCORE_SIM_SEED"])] if "HPCORE_SIM_SEED" in os.environ else range(400)


def run(seed: int) -> str:
    try:
        return Transfer(seed).run()
    except Exception as error:
        raise AssertionError(f"replay with HPCORE_SIM_SEED={seed}") from error


def test_state_arrives_once_from_valid_sources_or_is_called_lost() -> None:
    ends = [run(seed) for seed in SEEDS]
    assert len(ends) == 1 or (any(ends) and not all(ends))
