"""The healthy side of the `collective` transport: sends what receivers ask for, over c10d.

Whatever backend torch has moves the bytes (Gloo, hpcore, NCCL, Neuron's, XLA). How a source is
asked: through the c10d store that every process group has, under keys of its generation:
  layout/<source>                 sizes, chunk size
  digests/<source>                16 bytes a chunk
  ask/<source>/<receiver>/<n>     chunks wanted, in the order of their receives
  left/<source>/<receiver>        the receiver is done
One thread for each receiver serves it in the order in which it asked, so backends without tags
agree, too.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hpcore.collective_layout import ByteRange
from hpcore.errors import HpcoreError, PeerDead

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_BYTES = 4 << 20
_IDLE_S = (0.0002, 0.005)
_TAGS = 1 << 20
MOST_UNDER_WAY = 8
"""Chunks sent to one receiver and not taken yet; its own window is smaller."""


def prefix(generation: int) -> str:
    """Of all keys of a generation."""
    return f"hpcore/collective/{generation}"


def tag_of(number: int, message: int) -> int:
    """Of a message of the n-th request between two ranks."""
    return 1 + (number * 8 + message) % _TAGS


@dataclass
class _Link:
    """One receiver, as its source sees it."""

    group: Any
    asked: int = 0
    under_way: deque[Any] = field(default_factory=deque)  # (works, buffers), oldest first


class CollectiveSource:
    """Serves tensors to receivers until `close`, or until all of them have left.

    rank: this process's global rank. groups: receiver's global rank -> the process group that both
    are in; a group that fails takes all that use it with it, so one for each pair keeps faults
    apart. The tensors must keep their bytes. Thread-safe.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        *,
        store: Any,
        generation: int,
        rank: int,
        groups: Mapping[int, Any],
        chunk_bytes: int = CHUNK_BYTES,
        answer_limit_s: float = 5.0,
    ) -> None:
        self._range = ByteRange(tensors, chunk_bytes)
        self._store, self._rank, self._generation = store, rank, generation
        self._links = {receiver: _Link(group) for receiver, group in groups.items()}
        self._answer_limit_s = answer_limit_s
        self._stopped = threading.Event()
        self.troubles: dict[int, str] = {}
        """Receivers that were lost, and why."""
        self._keys = prefix(generation)
        layout = {"sizes": self._range.sizes, "chunk_bytes": chunk_bytes}
        store.set(f"{self._keys}/layout/{rank}", json.dumps(layout))
        store.set(f"hpcore/collective/latest/{rank}", str(generation))
        self._threads = [
            threading.Thread(target=self._publish, name="hpcore-digest", daemon=True),
            *(
                threading.Thread(
                    target=self._serve, args=(receiver, link), name="hpcore-collective", daemon=True
                )
                for receiver, link in self._links.items()
            ),
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Until all receivers have left or are lost; False when the time is up."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Serves no more; what is under way is finished or fails by itself, within
        answer_limit_s. Twice is fine."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> CollectiveSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _publish(self) -> None:
        digests = b"".join(self._range.digest(chunk) for chunk in range(self._range.chunks))
        self._store.set(f"{self._keys}/digests/{self._rank}", digests.hex())

    def _serve(self, receiver: int, link: _Link) -> None:
        idle_s = _IDLE_S[0]
        try:
            while not self._stopped.is_set():
                if self._answer(receiver, link):
                    idle_s = _IDLE_S[0]
                elif link.under_way:
                    self._land(link)
                elif self._store.check([f"{self._keys}/left/{self._rank}/{receiver}"]):
                    return
                else:
                    self._stopped.wait(idle_s)
                    idle_s = min(2 * idle_s, _IDLE_S[1])
            while link.under_way:
                self._land(link)
        except (RuntimeError, HpcoreError) as error:  # of the backend or the store
            self.troubles[receiver] = f"rank {receiver}: {error}"

    def _land(self, link: _Link) -> None:
        for work in link.under_way.popleft()[0]:
            work.wait(timedelta(seconds=self._answer_limit_s))

    def _answer(self, receiver: int, link: _Link) -> bool:
        """Whether anything was asked."""
        key = f"{self._keys}/ask/{self._rank}/{receiver}/{link.asked}"
        if not self._store.check([key]):
            return False
        for chunk in json.loads(self._store.get(key)):
            link.under_way.append(self._send(receiver, link, chunk))
        self._store.delete_key(key)
        link.asked += 1
        if len(link.under_way) > MOST_UNDER_WAY:
            self._land(link)
        return True

    def _send(self, receiver: int, link: _Link, chunk: int) -> tuple[list[Any], list[Tensor]]:
        import torch.distributed as dist

        buffers = self._range.messages(chunk)
        self._range.pack(chunk, buffers)
        buffers = self._outgoing(chunk, buffers)
        works = []
        for number, buffer in enumerate(buffers):
            tag = tag_of(link.asked, number)
            work = dist.isend(buffer, receiver, group=link.group, tag=tag)
            if work is None:
                raise PeerDead(f"rank {receiver} is not in the group that serves it")
            works.append(work)
        return works, buffers

    def _outgoing(self, chunk: int, buffers: list[Tensor]) -> list[Tensor]:
        """What is really sent; tests put damage here."""
        return buffers


def wait_for(store: Any, key: str, timeout_s: float) -> bytes | None:
    """The key's value; None if it did not come."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while not store.check([key]):
        if time.monotonic() > deadline:
            return None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.02)
    return bytes(store.get(key))
