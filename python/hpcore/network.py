"""This process's way to the memory of ranks on other hosts: a fabric, opened before it is needed.

HPCORE_TRANSPORT: "" (own node directly, others over the fabric), "fabric" (all others over the
fabric, as if each were on a host of its own: tests and drills), "local" (no other host).
HPCORE_FABRIC: provider[@domain,...]; empty: the best there is. HPCORE_LIBFABRIC: the library.
One thread; the native objects are thread-safe.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcore import _core
from hpcore.errors import HpcoreError, InvalidArgument
from hpcore.membership.roster import Roster
from hpcore.transfer import apart

TRANSPORTS = ("", "fabric", "local")


@dataclass(frozen=True)
class NetworkOptions:
    """What the environment asks for."""

    transport: str = ""
    provider: str = ""
    domains: tuple[str, ...] = ()
    library: str = ""

    @staticmethod
    def of(env: Mapping[str, str]) -> NetworkOptions:
        """Raises InvalidArgument for a transport that is none."""
        transport = env.get("HPCORE_TRANSPORT", "")
        if transport not in TRANSPORTS:
            known = ", ".join(repr(name) for name in TRANSPORTS)
            raise InvalidArgument(f"HPCORE_TRANSPORT={transport!r}: it must be one of {known}")
        provider, _, domains = env.get("HPCORE_FABRIC", "").partition("@")
        named = tuple(name.strip() for name in domains.split(",") if name.strip())
        return NetworkOptions(transport, provider, named, env.get("HPCORE_LIBFABRIC", ""))


def open_fabric(options: NetworkOptions) -> Any:
    """Raises NotFound, Unsupported: no library, no such provider; the text says what there is."""
    return _core.Fabric(
        provider=options.provider, domains=list(options.domains), library=options.library
    )


class Network:
    """The fabric of one process. Without `prepare` nothing is loaded."""

    def __init__(self, options: NetworkOptions) -> None:
        self._options = options
        self.fabric: Any = None
        self.server: Any = None
        self.why_not = ""
        """Why there is no fabric, after `prepare`."""

    @staticmethod
    def from_environment() -> Network:
        """Of this process."""
        return Network(NetworkOptions.of(os.environ))

    @property
    def forced(self) -> bool:
        """Whether ranks of this node, too, are read over the fabric."""
        return self._options.transport == "fabric"

    def needed(self, roster: Roster) -> bool:
        """Whether any two ranks are apart."""
        first = roster.members[0]
        return any(apart(first, member, self.forced) for member in roster.members)

    def prepare(self) -> bool:
        """Opens the fabric (0.1 to 0.3 s, once); says whether there is one."""
        if self.fabric is None and not self.why_not:
            if self._options.transport == "local":
                self.why_not = "HPCORE_TRANSPORT=local forbids to read from other hosts"
                return False
            try:
                fabric = open_fabric(self._options)
                self.server, self.fabric = _core.FabricServer(fabric), fabric
            except HpcoreError as error:
                self.why_not = str(error)
        return self.fabric is not None

    def describe(self) -> str:
        """One line: provider, version, rails; or why there is none."""
        return self.why_not if self.fabric is None else str(self.fabric.describe())

    def close(self) -> None:
        """Cuts off whoever reads. Twice is fine."""
        if self.server is not None:
            self.server.close()
        self.server = self.fabric = None
