"""The sample ledger: what it proves, and that each way in which a run could cheat is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import hpcore
from hpcore.cli.ledger import ledger as command
from hpcore.errors import InvalidArgument, NotFound, OutOfSpace
from hpcore.ledger import decode, encode
from hpcore.ledger_proof import verify

Note = dict[str, Any]


class Numbers:
    """Ten samples: an epoch ends in the middle of a step."""

    def __len__(self) -> int:
        return 10

    def batch(self, samples: list[int]) -> torch.Tensor:
        return torch.tensor(samples, dtype=torch.float32).unsqueeze(1)


def train(path: Path, total: int, data: Any = None) -> None:
    job = hpcore.Job(global_batch=8, micro_batch=2, seed=1, ledger=str(path))
    model = job.replicate(nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    job.track(optimizer=optimizer)
    for step in job.steps(data, total=total):
        with step:
            for batch in step.micro_batches():
                model(torch.ones(2, 1)).sum().backward()
                assert len(batch.samples) == 2
            step.commit(optimizer)


def notes_of(path: Path) -> list[Note]:
    notes = [decode(line) for line in path.read_bytes().splitlines() if line]
    assert all(note is not None for note in notes)
    return [note for note in notes if note is not None]


def two_ranks(steps: int = 5) -> list[Note]:
    """A run of two ranks over ten samples in natural order; each note as a rank would write it."""
    notes: list[Note] = []
    for step in range(steps):
        common = {"run": "a", "generation": 1, "rewound": 0}
        for lane in range(2):
            first = step * 4 + lane * 2
            samples = [(first + i) % 10 for i in range(2)]
            notes.append(
                {**common, "ran": step, "lane": lane, "lanes": 2, "first": lane * 2}
                | {"samples": samples}
            )
        notes += [{**common, "step": step, "batch": 4, "size": 10}] * 2
    return notes


def written(folder: Path, notes: list[Note]) -> str:
    path = folder / "ledger"
    path.write_bytes(b"".join(encode(note) for note in notes))
    return str(path)


def test_ledger_of_a_run_proves_each_sample_once_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    train(path, 5, Numbers())
    proof = verify(str(path))
    assert proof.holds, proof.problems
    assert (proof.steps, proof.samples, proof.epochs_complete, proof.discarded) == (5, 40, 4, 0)
    train(tmp_path / "positions", 3)
    proof = verify(str(tmp_path / "positions"))
    assert proof.holds and proof.samples == 24, proof.problems


def test_second_run_from_an_earlier_step_takes_back_what_came_after_it(tmp_path: Path) -> None:
    notes = two_ranks(5)
    again = [{**note, "run": "b"} for note in two_ranks(8) if note.get("step", note.get("ran")) > 2]
    proof = verify(written(tmp_path, notes + again))
    assert proof.holds, proof.problems
    assert (proof.steps, proof.taken_back, proof.runs) == (8, 2, 2)
    back = [{**note, "rewound": 2, "generation": 2, "run": "a"} for note in again]
    proof = verify(written(tmp_path, notes + back))
    assert proof.holds and (proof.steps, proof.taken_back) == (8, 2), proof.problems


def test_attempts_that_did_not_happen_are_not_counted(tmp_path: Path) -> None:
    notes = two_ranks(5)
    notes.insert(0, {**notes[0], "generation": 7, "samples": [9, 9]})
    proof = verify(written(tmp_path, notes))
    assert proof.holds and proof.discarded == 1, proof.problems


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_torn_line_spoils_itself_only(tmp_path: Path, cut: int) -> None:
    """A process died in the middle of an append; others go on."""
    notes = two_ranks(5)
    path = Path(written(tmp_path, notes))
    torn = encode({**notes[0], "ran": 5, "generation": 9})
    path.write_bytes(path.read_bytes() + torn[:-cut] + b"".join(map(encode, two_ranks(6)[-4:])))
    proof = verify(str(path))
    assert proof.holds and proof.steps == 6, proof.problems
    assert (proof.torn_lines, proof.discarded) == ((0, 1) if cut == 1 else (1, 0))


def edit(step: int, **changes: Any) -> Callable[[list[Note]], list[Note]]:
    """Changes the first rank's note of what it ran."""

    def change(notes: list[Note]) -> list[Note]:
        at = next(i for i, note in enumerate(notes) if note.get("ran") == step)
        return [*notes[:at], {**notes[at], **changes}, *notes[at + 1 :]]

    return change


def without(name: str, step: int, count: int = 9) -> Callable[[list[Note]], list[Note]]:
    def change(notes: list[Note]) -> list[Note]:
        gone = [i for i, note in enumerate(notes) if note.get(name) == step][:count]
        return [note for i, note in enumerate(notes) if i not in gone]

    return change


def twice(notes: list[Note]) -> list[Note]:
    return [*notes, *({**n, "generation": 2} for n in notes if n.get("step") == 2)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit(1, samples=[4, 4]), "epoch 0: sample 4 was used again in step 1"),
        (edit(1, samples=[4, 11]), "sample 11 of 10"),
        (edit(1, samples=[4]), "step 1: 3 samples of 4"),
        (edit(1, first=1), "begins at sample 1"),
        (edit(1, lane=1), "lane 1 was run twice"),
        (edit(2, samples=[1, 9]), "epoch 0: sample 1 was used again"),
        (without("ran", 3, 1), "nothing is noted of lanes [0] of 2"),
        (without("ran", 3), "nothing is noted of lanes [0] of 0"),
        (without("step", 3), "steps 3 to 3 are missing"),
        (without("step", 0), "begins with step 1"),
        (twice, "step 2 happened twice"),
        (lambda notes: [], "no step is noted"),
    ],
)
def test_what_is_wrong_is_found(
    tmp_path: Path, change: Callable[[list[Note]], list[Note]], said: str
) -> None:
    proof = verify(written(tmp_path, change(two_ranks(5))))
    assert not proof.holds
    assert any(said in problem for problem in proof.problems), proof.problems


def test_ledger_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be written: Is a directory"):
        train(tmp_path, 1)
    with pytest.raises(OutOfSpace, match="No space left on device: a step that cannot be noted"):
        train(Path("/dev/full"), 1)
    with pytest.raises(NotFound, match="cannot be read"):
        verify(str(tmp_path / "none"))


def test_command_says_what_the_ledger_proves(tmp_path: Path) -> None:
    good = CliRunner().invoke(command, ["verify", written(tmp_path, two_ranks(5))])
    assert good.exit_code == 0 and "holds: every sample" in good.output, good.output
    bad = written(tmp_path, edit(1, samples=[4, 4])(two_ranks(5)))
    result = CliRunner().invoke(command, ["verify", bad, "--json"])
    assert result.exit_code == 1 and not json.loads(result.output)["holds"]
    assert CliRunner().invoke(command, ["verify", str(tmp_path / "none")]).exit_code == 2
