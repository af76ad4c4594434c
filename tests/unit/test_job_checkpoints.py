"""Durable checkpoints of one process: whole or not there, and read back bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hpcore.checkpoints import Checkpoints
from hpcore.errors import NotFound
from hpcore.rollback import Shadow
from hpcore.tracked import TrackedState, capture

pytestmark = pytest.mark.torch


def training(steps: int) -> tuple[TrackedState, dict[str, Any]]:
    torch.manual_seed(steps)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    diary = {"steps": steps, "seen": [float(steps)]}
    state = TrackedState()
    for name, holder in (("model", model), ("optimizer", optimizer), ("diary", diary)):
        state.add(name, holder)
    for _ in range(steps):
        model(torch.randn(5, 4)).sum().backward()
        optimizer.step()
    return state, diary


def save(checkpoints: Checkpoints, state: TrackedState, step: int) -> None:
    shadow = Shadow(state)
    shadow.refresh()
    held = (capture(state.settled), shadow.captured())
    checkpoints.save(0, step, held, {"alone": step}, None)
    checkpoints.settle()


def bits(state: TrackedState) -> list[Any]:
    parts = capture([*state.settled, *state.fluid])
    return [parts.names, [tensor.tolist() for tensor in parts.tensors]]


def test_checkpoint_is_read_back_also_where_the_optimizer_had_no_state(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.steps() == []
    state, diary = training(3)
    save(checkpoints, state, 3)
    fresh, other = training(0)
    more, read = checkpoints.load(0, 3, fresh)
    assert more == {"alone": 3}
    assert read > 0
    assert bits(fresh) == bits(state)
    assert other == diary
    with pytest.raises(NotFound, match="nothing for rank 7"):
        checkpoints.load(7, 3, fresh)


def test_only_the_last_whole_checkpoints_are_kept_and_counted(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    state, _ = training(1)
    for step in (2, 4, 6):
        save(checkpoints, state, step)
    assert checkpoints.steps() == [4, 6]
    (checkpoints.path(6) / ".metadata").unlink()  # as if killed while it was written
    (tmp_path / "step-of-the-users").mkdir()
    assert checkpoints.steps() == [4]


def test_checkpoint_that_cannot_be_written_is_told_and_does_not_stop_the_job(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoints = Checkpoints(str(tmp_path / "file"))
    state, _ = training(1)
    save(checkpoints, state, 2)
    assert "hpcore: no checkpoint of step 2: NotADirectoryError" in capfd.readouterr().err
    assert checkpoints.steps() == []
