"""What one rank alone knows (`job.rank_local`): left in the agent's memory at every commit, so that
it outlives the worker.
 The blob holds two tags, the committed step and the one that is being committed: whoever takes the
rank over picks the one that happened. One thread.
"""

from __future__ import annotations

from typing import Any

from hpcore.errors import OutOfSpace, Unsupported
from hpcore.plain import Collector, decode, encode, join, split, write_back

BLOB_BYTES = 64 << 10
"""Size of a rank's blob in the node segment."""


class RankLocal:
    """The dict that a script sees, and its copies."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._boundary: Any = {}
        self._saved = False
        self.missing = False
        """State has come, but what this rank alone knew was not on this node."""

    @property
    def boundary(self) -> Any:
        """The plain tree of the values at the last boundary."""
        return self._boundary

    def replace(self, tree: Any) -> None:
        """The values of a boundary, as a tree; they are the boundary's from now on."""
        write_back(self.values, join(tree, ()))
        self.reached_boundary()

    def reached_boundary(self) -> None:
        """Remembers the values for a rollback."""
        self._boundary = self._tree()

    def roll_back(self) -> None:
        """The values of the last boundary, in place."""
        write_back(self.values, join(self._boundary, ()))

    def save(self, worker: Any, rank: int, tag: int) -> None:
        """Leaves the values of boundary `tag` with the agent. Raises OutOfSpace, Unsupported."""
        tree = self._tree()
        if not tree and not self._saved:
            return
        self._saved = True
        blob = encode(tree)
        if len(blob) > BLOB_BYTES:
            raise OutOfSpace(
                f"job.rank_local of rank {rank} takes {len(blob)} bytes; the limit is "
                f"{BLOB_BYTES}: keep large state in tracked objects"
            )
        worker.set_rank_blob(rank, tag, blob)

    def load(self, worker: Any, rank: int, tag: int) -> bool:
        """The values that this rank had at boundary `tag`, whoever held it; none if it had none.

        Returns whether there were any.
        """
        found = [blob for at, blob in worker.segment.rank_blob(rank) if at == tag]
        self._saved = bool(found)
        self.replace(decode(found[0]) if found else {})
        return bool(found)

    def _tree(self) -> Any:
        if not self.values:
            return {}
        into = Collector()
        tree = split(self.values, "job.rank_local", into)
        if into.names:
            raise Unsupported(
                f"{into.names[0]} is a tensor: job.rank_local holds plain values only"
            )
        return tree
