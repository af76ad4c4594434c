"""The healthy side of a heal: what a rank lays open, to its own node and to other hosts. Training
thread only; a native thread digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hpcore import _core
from hpcore.layout import check_tensor
from hpcore.manifest import manifest_of
from hpcore.membership.roster import Roster
from hpcore.replicas import ReplicaGroup
from hpcore.tracked import Capture
from hpcore.transfer import CHUNK_BYTES, apart

if TYPE_CHECKING:
    from hpcore.loop import Loop

Region = tuple[int, int]


def regions_of(tensors: Sequence[Tensor]) -> list[Region]:
    """Where dense tensors lie: (address, bytes), empty ones left out."""
    return [(t.data_ptr(), t.nbytes) for t in tensors if t.nbytes]


class Offer:
    """What a source lays open: live settled tensors, and the shadow of fluid ones."""

    def __init__(self, settled: Capture, fluid: Capture) -> None:
        self.settled = settled
        self.fluid = fluid
        for name, tensor in zip(settled.names, settled.wholes, strict=True):
            check_tensor(name, tensor)

    def regions(self) -> list[Region]:
        """(address, bytes) in the order of the manifest, empty tensors left out."""
        return regions_of([*self.settled.tensors, *self.fluid.tensors])

    def manifest(self) -> dict[str, Any]:
        """Trees and tensor specs, as plain values."""
        return manifest_of(self.settled, self.fluid)


class Serving:
    """An offer that receivers read, here or from other hosts, until `close`."""

    def __init__(
        self, loop: Loop, worker: Any, roster: Roster, group: ReplicaGroup, offer: Offer
    ) -> None:
        me = roster.members[loop.world.rank]
        members = {member.slot: member for member in roster.members}
        needy = [members[slot] for slot in group.receivers]
        forced = loop.network.forced
        self._offer = offer
        self._first = worker.slot == group.sources[0]
        self._regions = offer.regions()
        self._near = any(not apart(me, one, forced) for one in needy)
        self._far = any(apart(me, one, forced) for one in needy)
        self._server = loop.network.server if self._far and loop.network.prepare() else None
        self._source = _core.StateSource(
            worker,
            roster.generation,
            self._regions,
            CHUNK_BYTES,
            group.sources.index(worker.slot),
            len(group.sources),
            [one.slot for one in needy if not apart(me, one, forced)],
            server=self._server,
        )

    def announcement(self) -> dict[str, Any]:
        """Where receivers find it, on this node and from other hosts; of the first source also
        what it is."""
        told: dict[str, Any] = {"manifest": self._offer.manifest()} if self._first else {}
        if self._near:
            told["addresses"] = [list(region) for region in self._regions]
        if self._server is not None:
            told["fabric"] = self._source.remote_address()
        return told

    def publish(self) -> None:
        """Digests this source's part, so that receivers can prove what they read."""
        self._source.publish()

    def close(self) -> None:
        """Nobody reads any more. Twice is fine."""
        self._source.close()
        if self._server is not None:  # the tensors may be freed from now on
            self._server.withdraw(self._regions)
            self._server = None
