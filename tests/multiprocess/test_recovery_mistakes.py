"""Bugs are no faults: the job stops, says why, and says it once."""

from __future__ import annotations

from pathlib import Path

import pytest
from drills import Outcome, train


def _train(folder: Path, mistake: str, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    monkeypatch.setenv("MISTAKE", mistake)
    return train(folder, script="train_mistaken.py", nproc=2, standbys=0, steps=4)


def test_layout_that_differs_between_ranks_stops_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = _train(tmp_path, "layout", monkeypatch)
    assert outcome.code == 1, outcome.story()
    assert "model.0.weight is float32[4, 3]" in outcome.output, outcome.story()
    assert "float32[5, 3]" in outcome.output and "on rank 1" in outcome.output
    assert not outcome.events("commit")


@pytest.mark.parametrize(
    ("mistake", "words", "steps", "tries"),
    [
        ("bug", "ValueError: a bug in step 2", 2, 3),
        ("late bug", "ValueError: a bug after the commit", 3, 2),
        ("twice", "step.commit: step 1 is committed already", 2, 0),
        ("sums", "pass different sums to commit", 0, 0),
        ("more sums", "pass different sums to commit", 0, 0),
        ("after", "ValueError: a bug after the loop", 4, 0),
    ],
)
def test_bug_stops_the_job_with_its_traceback(
    mistake: str,
    words: str,
    steps: int,
    tries: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcome = _train(tmp_path, mistake, monkeypatch)
    assert outcome.code == 1, outcome.story()
    assert words in outcome.output and "train_mistaken.py" in outcome.output, outcome.story()
    committed = {event["step"] for event in outcome.events("commit", rank=0)}
    assert committed >= set(range(steps)), outcome.story()
    # Of two ranks that fail alike the second may be too late to be heard.
    told = len(outcome.events("mail", kind=1))
    assert min(tries, 1) <= told <= tries, outcome.story()


def test_script_may_break_out_of_the_loop(tmp_path: Path) -> None:
    outcome = train(tmp_path, script="train_break.py", nproc=2, standbys=0, steps=5)
    assert outcome.code == 0, outcome.story()
    assert outcome.output.count("left after 5 steps with 2.0 ranks") == 2, outcome.story()
