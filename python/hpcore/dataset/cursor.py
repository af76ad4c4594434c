"""Where a run is in its data: 40 bytes that any number of ranks can go on from."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hpcore import _core
from hpcore.errors import CorruptData, InvalidArgument, MismatchError

if TYPE_CHECKING:
    from hpcore.dataset.samples import Samples

_LAYOUT = struct.Struct("<16sIIQQ")
CURSOR_BYTES = _LAYOUT.size
_WORD = 1 << 64


@dataclass(frozen=True)
class Cursor:
    """A position in the order of a dataset under a seed; nothing else has to be saved.

    Attributes:
        uuid: 16 bytes that name the content.
        order_version: which definition of the order it is a position of.
        reading: how the content is cut into samples (field, sequence, split, weights), as 32 bits.
        seed: key of the order.
        position: samples consumed since the first epoch, over all ranks.
    """

    uuid: bytes
    order_version: int
    reading: int
    seed: int
    position: int

    @classmethod
    def of(cls, data: Samples, seed: int, position: int = 0) -> Cursor:
        """The cursor of a dataset at a position. Raises InvalidArgument for numbers out of
        range."""
        if not 0 <= seed < _WORD or not 0 <= position < _WORD:
            raise InvalidArgument(
                f"seed {seed} and position {position} must be from 0 to 2**64 - 1"
            )
        return cls(data.identity, _core.ORDER_VERSION, data.reading, seed, position)

    def at(self, position: int) -> Cursor:
        """The same order at another position."""
        return replace(self, position=position)

    def to_bytes(self) -> bytes:
        """Exactly 40 bytes."""
        return _LAYOUT.pack(self.uuid, self.order_version, self.reading, self.seed, self.position)

    @classmethod
    def from_bytes(cls, state: bytes) -> Cursor:
        """Raises CorruptData unless there are 40 bytes."""
        if len(state) != CURSOR_BYTES:
            raise CorruptData(
                f"a data position has {CURSOR_BYTES} bytes; these are {len(state)}: was another "
                "loader's state given?"
            )
        return cls(*_LAYOUT.unpack(state))

    def check(self, data: Samples) -> None:
        """Raises MismatchError unless this is a position of `data` as it is read here."""
        if self.uuid != data.identity:
            raise MismatchError(
                f"the data position is of dataset {self.uuid.hex()}, this is {data!r} with "
                f"{data.identity.hex()}: go on with the dataset that it was made with, or begin "
                "anew"
            )
        if self.order_version != _core.ORDER_VERSION:
            raise MismatchError(
                f"the data position is of order version {self.order_version}; this hpcore has "
                f"{_core.ORDER_VERSION}: go on with the hpcore that it was made with"
            )
        if self.reading != data.reading:
            raise MismatchError(
                "the data position was made with the same content read in another way (field, "
                f"sequence, split or weights) than {data!r}: choose the same, or begin anew"
            )
