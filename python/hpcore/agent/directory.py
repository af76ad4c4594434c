"""What one shadow keeper lays open to others: which records its node's memory holds and where they
are to be read. A text in memory of its own, written whole, read one-sided: a digest tells one that
was read while it was written. One thread.
"""

from __future__ import annotations

import json
import mmap
import struct
from typing import Any

from hpcore import _core
from hpcore.agent.shadow_memory import address_of

BYTES = 1 << 20
_HEAD = struct.Struct("<8sQ16s")
_MAGIC = b"HPKEEPER"
_FIRST = 32 << 10  # most directories fit into one read of this


class Directory:
    """The memory that is laid open."""

    def __init__(self, server: Any) -> None:
        self._memory = mmap.mmap(-1, BYTES)
        self.address: bytes = server.expose([(address_of(self._memory), BYTES)])
        self._written = b""

    def write(self, tree: Any) -> None:
        """Replaces the text, if it is another."""
        text = json.dumps(tree, separators=(",", ":")).encode()
        if text == self._written:
            return
        if _HEAD.size + len(text) > BYTES:
            raise ValueError(f"a directory of {len(text)} bytes; the limit is {BYTES}")
        self._written = text
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        self._memory[: _HEAD.size] = _HEAD.pack(_MAGIC, len(text), _core.digest128(text))


class RemoteDirectory:
    """Another keeper's, read over the fabric."""

    def __init__(self, fabric: Any, address: bytes) -> None:
        self._mirror = mmap.mmap(-1, BYTES)
        self._into = [(address_of(self._mirror), BYTES)]
        self._remote = _core.RemoteMemory.over_fabric(fabric, address, 0, [(0, BYTES)])
        self._fabric = fabric

    def read(self, timeout_s: float) -> Any:
        """The text as it was whole; None if it was being written. Raises PeerDead and the like."""
        self._remote.read(0, _FIRST, self._into, timeout_s)
        magic, size, digest = _HEAD.unpack(self._mirror[: _HEAD.size])
        if magic != _MAGIC or _HEAD.size + size > BYTES:
            return None
        end = _HEAD.size + size
        if end > _FIRST:
            self._remote.read(_FIRST, end - _FIRST, self._into, timeout_s)
        text = self._mirror[_HEAD.size : end]
        return json.loads(text) if _core.digest128(text) == digest else None

    def close(self) -> None:
        """Lets the mirror go."""
        self._fabric.release(self._into)
