"""Memory for batches that is used again: fresh pages cost more than what is copied into them.

A tensor that is lent stands on an array of its own over the buffer; the buffer comes back when that
array ends, which is when the tensor and all that shares its storage are gone. Any thread may take;
what comes back may do so on any thread.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FREE_BUFFERS, FREE_BYTES = 4, 64 << 20
"""What is kept at most while nobody uses it; larger batches are always fresh memory."""


class _Lease(weakref.ref):  # type: ignore[type-arg]
    """Says when the array over `buffer` is gone; `free` is where that belongs."""

    __slots__ = ("buffer", "free")
    buffer: Any
    free: deque[Any]


class OutputRing:
    """Buffers of the one shape that was asked for last."""

    def __init__(self) -> None:
        self._now: tuple[Any, deque[Any]] = (None, deque())
        self._lent: dict[int, _Lease] = {}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor of any content. Its storage cannot be resized."""
        import torch

        key = (shape, dtype)
        known, free = self._now
        if key != known:
            free = deque(maxlen=FREE_BUFFERS)
            self._now = key, free
        try:
            buffer = free.popleft()
        except IndexError:
            fresh = torch.empty(shape, dtype=dtype)
            if not 0 < fresh.nbytes <= FREE_BYTES // FREE_BUFFERS:
                return fresh
            buffer = fresh.numpy()
        array = buffer[:]
        lease = _Lease(array, self._back)
        lease.buffer, lease.free = buffer, free
        self._lent[id(lease)] = lease
        return torch.from_numpy(array)

    def _back(self, lease: Any) -> None:
        del self._lent[id(lease)]
        lease.free.append(lease.buffer)
