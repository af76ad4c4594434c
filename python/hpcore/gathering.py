"""What all ranks of a generation tell each other in a heal. Training thread only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcore.errors import MismatchError
from hpcore.plain import decode, encode

if TYPE_CHECKING:
    from hpcore.loop import Loop


def gather(loop: Loop, message: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rank's message, which holds `layout`. Blocks until all have come.

    Raises RosterChanged, and MismatchError, on all ranks, if layouts differ.
    """
    texts = loop.world.communicator.all_gather_bytes(encode(message), loop.recovery.deadline_s)
    messages = [decode(text) for text in texts]
    _check_layouts(loop, messages)
    return messages


def _check_layouts(loop: Loop, messages: list[dict[str, Any]]) -> None:
    """Every rank sees the same digests, so all go on or all exchange layouts and raise."""
    if all(message["layout"] == messages[0]["layout"] for message in messages):
        return
    texts = loop.world.communicator.all_gather_bytes(
        encode([list(line) for line in loop.state.layout]), loop.recovery.deadline_s
    )
    raise MismatchError(difference([decode(text) for text in texts]))


def difference(layouts: Sequence[list[list[str]]]) -> str:
    """The first difference between rank 0's layout and another's, in words."""
    for rank, layout in enumerate(layouts):
        for here, there in zip(layouts[0], layout, strict=False):
            if here != there:
                return (
                    f"tracked state differs between ranks: {here[0]} is {here[1]} on rank 0, but "
                    f"{there[0]} is {there[1]} on rank {rank}; build the same state on every rank"
                )
        if len(layout) != len(layouts[0]):
            more, name = (0, layouts[0]) if len(layouts[0]) > len(layout) else (rank, layout)
            shorter = min(len(layout), len(layouts[0]))
            return (
                f"tracked state differs between ranks: {name[shorter][0]} ({name[shorter][1]}) is "
                f"on rank {more} only; rank 0 has {len(layouts[0])} entries, rank {rank} has "
                f"{len(layout)}"
            )
    return "tracked state differs between ranks"
