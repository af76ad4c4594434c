"""How ranks leave the loop: together. Training thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcore.errors import JobStopped, RosterChanged
from hpcore.world import Flag, Phase

if TYPE_CHECKING:
    from hpcore.loop import Loop


def agree_on_end(loop: Loop, total: int) -> bool:
    """One empty step, so that nobody leaves before all have ended the last one.

    Returns whether the loop is over; not if the generation is. Blocks until all ranks came.
    """
    if loop.worker is None:
        return True
    if loop.steps_done > total:
        raise JobStopped(
            f"a rank was lost after all {total} steps were done and the others had left the loop"
        )
    try:
        loop.world.progress(total, Phase.REDUCE)
        loop.world.ready(total)
        loop.world.wait(total)
    except RosterChanged:
        return False
    leave(loop)
    return True


def leave(loop: Loop) -> None:
    """Nothing after this is recovered."""
    if loop.worker is not None:
        loop.worker.flags = loop.worker.flags & ~Flag.RECOVERABLE
        loop.world.progress(loop.steps_done, Phase.ENDED)
    loop.tiers.close()
