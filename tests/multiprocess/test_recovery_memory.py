"""A heal's memory beyond the state: at most 64 MiB at the peak, within a node and over a fabric."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from drills import train

from hpcore import _core, errors

pytestmark = pytest.mark.torch

LIMIT_BYTES = 64 << 20
STATE_BYTES = 96 << 20


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", "") or "tsan" in os.environ.get("LD_PRELOAD", ""),
    reason="a sanitizer's own memory is no heal's",
)
@pytest.mark.parametrize("transport", ["", "fabric"])
def test_heal_takes_little_memory_beyond_the_state(
    transport: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if transport:
        try:
            _core.Fabric(provider="tcp", domains=["lo"])
        except (errors.NotFound, errors.Unsupported) as error:
            pytest.skip(str(error))
        monkeypatch.setenv("HPCORE_FABRIC", "tcp@lo")
    monkeypatch.setenv("HPCORE_TRANSPORT", transport)
    outcome = train(
        tmp_path,
        "rank=1 step=2 point=backward action=sigkill",
        script="train_measured.py",
        nproc=2,
        steps=4,
    )
    assert outcome.code == 0, outcome.story()
    healed = outcome.events("heal", role="receiver", rank=1, generation=2)[0]
    assert healed["bytes"] >= STATE_BYTES
    assert healed["method"].startswith("fabric") == bool(transport), healed
    told = [json.loads(path.read_text()) for path in tmp_path.glob("heal-*.json")]
    assert len(told) == 1
    # A standby holds all of the state's memory before: it has rehearsed.
    assert told[0]["peak"] - told[0]["before"] <= LIMIT_BYTES, told
