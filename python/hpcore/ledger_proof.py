"""Reads a sample ledger and says whether each sample was used exactly once an epoch. No torch.

A step counts if some rank noted that it happened, and it was not taken back since: a run that goes
back to an earlier step (copies, a checkpoint, a new run of the job) voids what came after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcore.errors import NotFound
from hpcore.ledger import decode

MOST_PROBLEMS = 20
Era = tuple[int, int]  # number of the run in the file, steps gone back in it
Attempt = tuple[str, int, int]  # run, generation, step


@dataclass
class Proof:
    """What a ledger proves. `problems`: empty if each sample of each step was used exactly once."""

    steps: int = 0
    first_step: int = 0
    samples: int = 0
    epochs_complete: int = 0
    runs: int = 0
    discarded: int = 0
    """Attempts of which nothing was kept."""
    taken_back: int = 0
    """Steps that happened and were given up, to be done again."""
    torn_lines: int = 0
    problems: list[str] = field(default_factory=list)
    """The first ones; `problem_count` is all of them."""
    problem_count: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return self.problem_count == 0

    def blame(self, problem: str) -> None:
        """Counts a problem."""
        self.problem_count += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


def verify(path: str) -> Proof:
    """The proof of a ledger. Reads the file twice. Raises NotFound if there is none."""
    proof = Proof()
    happened = _happened(path, proof)
    kept = _kept(happened, proof)
    if not kept:
        proof.blame("no step is noted")
        return proof
    steps = sorted(note["step"] for note in kept.values())
    proof.steps, proof.first_step = len(steps), steps[0]
    if steps[0]:
        proof.blame(f"the ledger begins with step {steps[0]}")
    for before, after in itertools.pairwise(steps):
        if after != before + 1:
            proof.blame(f"steps {before + 1} to {after - 1} are missing")
    parts = _parts(path, kept, {_attempt(note) for _, note in happened}, proof)
    _count(kept, parts, proof)
    return proof


def _notes(path: str, proof: Proof | None) -> Iterator[dict[str, Any]]:
    try:
        with open(path, "rb") as lines:
            for line in lines:
                if line == b"\n":
                    continue
                note = decode(line.rstrip(b"\n"))
                if note is not None:
                    yield note
                elif proof is not None:
                    proof.torn_lines += 1
    except OSError as error:
        raise NotFound(f"ledger {path!r} cannot be read: {error.strerror}") from error


def _happened(path: str, proof: Proof) -> list[tuple[Era, dict[str, Any]]]:
    """Each step that happened, once for each generation that noted it."""
    runs: dict[str, int] = {}
    found: dict[Attempt, tuple[Era, dict[str, Any]]] = {}
    for note in _notes(path, proof):
        number = runs.setdefault(note["run"], len(runs))
        if "step" in note:
            key = (note["run"], note["generation"], note["step"])
            found.setdefault(key, ((number, note["rewound"]), note))
    proof.runs = len(runs)
    return list(found.values())


def _kept(
    happened: list[tuple[Era, dict[str, Any]]], proof: Proof
) -> dict[Attempt, dict[str, Any]]:
    """Those that no later era has gone back behind."""
    first: dict[Era, int] = {}
    for era, note in happened:
        first[era] = min(first.get(era, note["step"]), note["step"])
    limits: dict[Era, float] = {}
    limit = float("inf")
    for era in sorted(first, reverse=True):
        limits[era] = limit
        limit = min(limit, first[era])
    kept: dict[Attempt, dict[str, Any]] = {}
    steps: dict[int, Attempt] = {}
    for era, note in happened:
        if note["step"] >= limits[era]:
            proof.taken_back += 1
            continue
        key = _attempt(note)
        if note["step"] in steps:
            proof.blame(f"step {note['step']} happened twice: {steps[note['step']]} and {key}")
            continue
        steps[note["step"]] = key
        kept[key] = note
    return kept


def _attempt(note: dict[str, Any]) -> Attempt:
    step = note["step"] if "step" in note else note["ran"]
    return (note["run"], note["generation"], step)


def _parts(
    path: str, kept: dict[Attempt, Any], happened: set[Attempt], proof: Proof
) -> dict[Attempt, dict[int, dict[str, Any]]]:
    """What was run for the steps that count, by lane."""
    parts: dict[Attempt, dict[int, dict[str, Any]]] = {key: {} for key in kept}
    discarded: set[Attempt] = set()
    for note in _notes(path, None):
        if "ran" not in note:
            continue
        key = _attempt(note)
        if key not in kept:
            if key not in happened:
                discarded.add(key)
        elif note["lane"] in parts[key]:
            proof.blame(f"step {key[2]}: lane {note['lane']} was run twice")
        else:
            parts[key][note["lane"]] = note
    proof.discarded = len(discarded)
    return parts


def _count(
    kept: dict[Attempt, dict[str, Any]],
    parts: dict[Attempt, dict[int, dict[str, Any]]],
    proof: Proof,
) -> None:
    """Each position of each step once, and each sample once an epoch."""
    epochs: dict[int, np.ndarray[Any, np.dtype[np.uint8]]] = {}
    position = 0
    for key, note in sorted(kept.items(), key=lambda item: item[0][2]):
        samples = _samples_of(key[2], note, parts[key], proof)
        size = note["size"]
        for at, sample in enumerate(samples, position):
            epoch, wanted = (0, at) if size is None else (at // size, None)
            if size is None:
                if sample != wanted:
                    proof.blame(f"step {key[2]}: sample {sample} in place of {wanted}")
                continue
            used = epochs.setdefault(epoch, np.zeros(size, np.uint8))
            if not 0 <= sample < len(used):
                proof.blame(f"step {key[2]}: sample {sample} of {size}")
            elif used[sample]:
                proof.blame(f"epoch {epoch}: sample {sample} was used again in step {key[2]}")
            else:
                used[sample] = 1
        position += note["batch"]
        proof.samples += len(samples)
        if size is not None:
            for epoch in [e for e in epochs if (e + 1) * size <= position]:
                _complete(epoch, epochs.pop(epoch), proof)


def _samples_of(
    step: int, note: dict[str, Any], parts: dict[int, dict[str, Any]], proof: Proof
) -> list[int]:
    """The samples of a step in the order of their positions."""
    lanes = max((part["lanes"] for part in parts.values()), default=0)
    missing = sorted(set(range(max(1, lanes))) - set(parts))
    if missing:
        proof.blame(f"step {step}: nothing is noted of lanes {missing} of {lanes}")
    found: list[int] = []
    for part in sorted(parts.values(), key=lambda part: part["first"]):
        if part["samples"] and part["first"] != len(found) and not missing:
            proof.blame(
                f"step {step}: lane {part['lane']} begins at sample {part['first']} of the step, "
                f"not at {len(found)}"
            )
        found += part["samples"]
    if len(found) != note["batch"]:
        proof.blame(f"step {step}: {len(found)} samples of {note['batch']}")
    return found


def _complete(epoch: int, used: np.ndarray[Any, np.dtype[np.uint8]], proof: Proof) -> None:
    left = np.flatnonzero(used == 0)
    if len(left):
        proof.blame(f"epoch {epoch}: {len(left)} samples were not used, {left[:5].tolist()} first")
    else:
        proof.epochs_complete += 1
