"""Several datasets read as one, by weights that may change with the step."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from hpcore import _core
from hpcore.dataset.samples import Samples, reading_code
from hpcore.errors import InvalidArgument

LARGEST_TOTAL = 1 << 16
"""Weights are integers with at most this sum."""


def integer_weights(weights: Sequence[float]) -> list[int]:
    """The smallest integers in the proportions of `weights`.

    Decimals count as they are written: 0.7 is 7/10. Where the integers would add up to more than
    2**16 they are rounded to a sum of 2**16, so each share is off by at most 2**-16, and none that
    was positive becomes 0. Raises InvalidArgument for negative, infinite or no weights.
    """
    if not weights or any(not math.isfinite(w) or w < 0 for w in weights) or not any(weights):
        raise InvalidArgument(f"weights must be at least 0, and one above it: {list(weights)}")
    exact = [Fraction(str(weight)) for weight in weights]
    common = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * common) for weight in exact]
    divisor = math.gcd(*whole)
    whole = [weight // divisor for weight in whole]
    total = sum(whole)
    if total <= LARGEST_TOTAL:
        return whole
    scaled = [Fraction(weight * LARGEST_TOTAL, total) for weight in whole]
    found = [max(int(share), 1) if share else 0 for share in scaled]
    by_rest = sorted(range(len(found)), key=lambda i: found[i] - scaled[i])
    for i in by_rest[: max(0, LARGEST_TOTAL - sum(found))]:
        found[i] += 1
    while sum(found) > LARGEST_TOTAL:
        found[max(range(len(found)), key=found.__getitem__)] -= 1
    return found


class Mixture(Samples):
    """Datasets whose samples take turns by weight.

    Among the first k samples, whatever k, member i has its share of k to within less than one (see
    ``docs/dataset.md``), so any window has it to within two, and any multiple of the sum of the
    weights exactly. Each member is shuffled for itself and begins anew when it is through.
    `len` is the sum of the members; the order goes on for ever, without epochs of the whole.

    Args:
        members: datasets that give batches of one kind.
        weights: one for each; None: their sizes, rounded as `integer_weights` says.
        curriculum: weights by step, ``[(0, [..]), (1000, [..])]``: from step 1000 on the second;
            instead of `weights`.
        global_batch: samples of a step, for the steps of the curriculum; 1: they are positions.
    """

    def __init__(
        self,
        members: Sequence[Samples],
        weights: Sequence[float] | None = None,
        *,
        curriculum: Iterable[tuple[int, Sequence[float]]] | None = None,
        global_batch: int = 1,
    ) -> None:
        if not members or global_batch < 1 or (weights is not None and curriculum is not None):
            raise InvalidArgument(
                "a mixture needs members, a positive global_batch, and weights or a curriculum"
            )
        self.members = tuple(members)
        self._sizes = [len(member) for member in members]
        if curriculum is None:
            curriculum = [(0, self._sizes if weights is None else weights)]
        self.phases = [(step * global_batch, integer_weights(w)) for step, w in curriculum]
        self._firsts = [sum(self._sizes[:i]) for i in range(len(members))]
        self._orders: dict[tuple[int, bool], _core.MixtureOrder] = {}
        self.order(0, True)  # what is wrong with the phases is said here

    def __len__(self) -> int:
        return sum(self._sizes)

    @property
    def identity(self) -> bytes:
        """Made from the members'."""
        whole = b"".join(member.identity for member in self.members)
        return hashlib.sha256(whole).digest()[:16]

    @property
    def reading(self) -> int:
        """Members, weights and phases."""
        return reading_code([member.reading for member in self.members], self.phases)

    def order(self, seed: int, shuffle: bool) -> _core.MixtureOrder:
        """Position -> (member, sample of it) under a seed."""
        key = (seed, shuffle)
        if key not in self._orders:
            made = _core.MixtureOrder(self._sizes, self.phases, seed, shuffle)
            self._orders = {key: made}
        return self._orders[key]

    def samples_at(self, seed: int, first: int, count: int, shuffle: bool = True) -> list[int]:
        """The samples at positions [first, first + count); numbered member after member."""
        members, samples = self.order(seed, shuffle).many(first, count)
        return [self._firsts[m] + s for m, s in zip(members, samples, strict=True)]

    def member_of(self, index: int) -> tuple[int, int]:
        """(member, its sample) of a sample of the mixture."""
        if not 0 <= index < len(self):
            raise InvalidArgument(f"sample {index} is out of range: {self!r}")
        member = bisect_right(self._firsts, index) - 1
        return member, index - self._firsts[member]

    def batch(self, indices: Sequence[int]) -> Any:
        """These samples, whichever members they are of. Raises InvalidArgument."""
        places: dict[int, list[int]] = {}
        wanted: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            member, sample = self.member_of(index)
            places.setdefault(member, []).append(place)
            wanted.setdefault(member, []).append(sample)
        if len(wanted) == 1:
            ((member, samples),) = wanted.items()
            return self.members[member].batch(samples)
        pieces = {member: self.members[member].batch(s) for member, s in wanted.items()}
        return _merge(list(pieces.values()), [places[member] for member in pieces], len(indices))

    def will_need(self, indices: Sequence[int]) -> int:
        """See `Samples.will_need`."""
        wanted: dict[int, list[int]] = {}
        for index in indices:
            member, sample = self.member_of(index)
            wanted.setdefault(member, []).append(sample)
        return sum(self.members[member].will_need(samples) for member, samples in wanted.items())

    def __repr__(self) -> str:
        return f"Mixture({list(self.members)!r}, weights={self.phases[0][1]})"


def _merge(pieces: list[Any], places: list[list[int]], count: int) -> Any:
    """One batch from the members' batches: row j of piece i becomes row places[i][j]."""
    import torch

    if not pieces:
        return []
    first = pieces[0]
    if isinstance(first, torch.Tensor):
        shapes = {(piece.dtype, tuple(piece.shape[1:])) for piece in pieces}
        if len(shapes) > 1:
            raise InvalidArgument(
                f"members of a mixture give different samples: {sorted(map(str, shapes))}; "
                "choose one sequence and dtype"
            )
        out = first.new_empty((count, *first.shape[1:]))
        for piece, rows in zip(pieces, places, strict=True):
            out[rows] = piece
        return out
    if isinstance(first, dict):
        return {key: _merge([piece[key] for piece in pieces], places, count) for key in first}
    if isinstance(first, tuple):
        columns = zip(*pieces, strict=True)
        return tuple(_merge(list(column), places, count) for column in columns)
    found: list[Any] = [None] * count
    for piece, rows in zip(pieces, places, strict=True):
        for item, row in zip(piece, rows, strict=True):
            found[row] = item
    return found
