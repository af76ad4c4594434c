"""What `hpcore run` was asked for about several nodes, checked before anything is started."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from hpcore.errors import InvalidArgument
from hpcore.membership.coordinator import Coordinator
from hpcore.membership.etcd import EtcdAddress, EtcdCoordinator

LEASE_S = 2.0
LEAST_LEASE_S = 1.0


@dataclass(frozen=True)
class NodesOptions:
    """`nodes`: "4" or "2:8" (to begin with, and at most). `address`: of this node, for the others;
    "": the one that leads to the coordinator. `lease_s`: a node that reaches neither coordinator
    nor all other nodes stops its workers within this time, and nobody takes its ranks before."""

    nodes: str
    coordinator: str
    job: str
    address: str = ""
    rack: str = ""
    lease_s: float = LEASE_S

    @property
    def bounds(self) -> tuple[int, int]:
        """Nodes to begin with, and at most."""
        least, _, most = self.nodes.partition(":")
        return int(least), int(most or least)

    def check(self) -> None:
        """Raises InvalidArgument with one line that names the option, its value, the way out."""
        if not re.fullmatch(r"\d+(:\d+)?", self.nodes) or not 1 <= self.bounds[0] <= self.bounds[1]:
            raise InvalidArgument(f"--nnodes {self.nodes}: a number of nodes, or LEAST:MOST")
        if not self.coordinator:
            raise InvalidArgument(
                f"--nnodes {self.nodes}: needs --coordinator etcd://host:port, where nodes meet"
            )
        if not re.fullmatch(r"[\w.-]+", self.job):
            raise InvalidArgument(
                f"--job {self.job!r}: needs a name, the same on all nodes: letters, digits, . _ -"
            )
        if self.lease_s < LEAST_LEASE_S:
            raise InvalidArgument(f"--lease {self.lease_s}: must be {LEAST_LEASE_S} s or more")
        EtcdAddress.parse(self.coordinator)

    def connect(self) -> Coordinator:
        """The coordinator."""
        return EtcdCoordinator(EtcdAddress.parse(self.coordinator), max(0.5, self.lease_s / 2))

    def own_address(self) -> str:
        """Where other nodes reach this one: of the way to the coordinator, unless it was given.

        Raises InvalidArgument if there is no way.
        """
        if self.address:
            return self.address
        host, port = EtcdAddress.parse(self.coordinator).members[0]
        try:
            family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:  # nothing is sent
                probe.connect(where)
                return str(probe.getsockname()[0])
        except OSError as error:
            raise InvalidArgument(
                f"no way from this node to {host}:{port} ({error}): name its address by --address"
            ) from error
