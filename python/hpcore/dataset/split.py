"""Training and validation parts of a dataset, chosen by a keyed hash, without an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from hpcore import _core
from hpcore.dataset.samples import Samples, reading_code
from hpcore.errors import InvalidArgument

_KEY = 0x5EED_5117  # keeps a split apart from the order of an epoch under the same seed


class Part(Samples):
    """Some of another dataset's samples: those groups that the hash puts into certain places.

    The hash is a keyed permutation of the groups, so a part's sample is found at once, sizes are
    exact, and parts never overlap. Samples behind the last whole group belong to the first part.
    """

    def __init__(self, whole: Samples, name: str, seed: int, group: int, places: range) -> None:
        self.whole, self.name, self.seed, self.group = whole, name, seed, group
        self._places = places
        self._groups = len(whole) // group
        self._hash = _core.Permutation(max(self._groups, 1), seed ^ _KEY, 0)
        self._grouped = len(places) * group
        rest = len(whole) - self._groups * group if places.start == 0 else 0
        self._length = self._grouped + rest

    def __len__(self) -> int:
        return self._length

    @property
    def identity(self) -> bytes:
        """That of the whole."""
        return self.whole.identity

    @property
    def reading(self) -> int:
        """Tells parts apart."""
        return reading_code(
            self.whole.reading, "part", self.seed, self.group, self._places.start, self._length
        )

    def sample_of(self, index: int) -> int:
        """The sample of the whole dataset that sample `index` of this part is."""
        if not 0 <= index < self._length:
            raise InvalidArgument(f"sample {index} is out of range: {self!r}")
        if index >= self._grouped:
            return self._groups * self.group + index - self._grouped
        place, within = divmod(index, self.group)
        return self._hash(self._places.start + place) * self.group + within

    def batch(self, indices: Sequence[int]) -> Any:
        """These samples of the part. Raises InvalidArgument."""
        return self.whole.batch([self.sample_of(index) for index in indices])

    def will_need(self, indices: Sequence[int]) -> int:
        """See `Samples.will_need`."""
        return self.whole.will_need([self.sample_of(index) for index in indices])

    def __repr__(self) -> str:
        return f"{self.whole!r}.part({self.name!r}, samples={self._length})"


def split(whole: Samples, shares: Mapping[str, float], seed: int, group: int) -> dict[str, Part]:
    """Disjoint parts of a dataset.

    Args:
        whole: what is split.
        shares: share of each part by name, e.g. ``{"train": 0.98, "validation": 0.02}``; together
            at most 1.
        seed: key of the hash; another seed makes another split.
        group: so many neighbouring samples stay together. Sequences of a token stream share a
            token with their neighbours, and documents run over several: 64, say, keeps nearly all
            documents in one part.

    Raises InvalidArgument.
    """
    exact = {name: Fraction(str(share)) for name, share in shares.items()}
    if not exact or min(exact.values()) < 0 or sum(exact.values()) > 1:
        raise InvalidArgument(f"shares must be at least 0 and at most 1 together: {dict(shares)}")
    if group < 1 or not 0 <= seed < 1 << 64:
        raise InvalidArgument(f"group {group} must be at least 1, seed {seed} 0 to 2**64 - 1")
    groups, parts, total, first = len(whole) // group, dict[str, Part](), Fraction(0), 0
    for name, share in exact.items():
        total += share
        end = round(total * groups)
        parts[name] = Part(whole, name, seed, group, range(first, end))
        first = end
    return parts
