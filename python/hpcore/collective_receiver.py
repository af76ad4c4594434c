"""The newcomer's side of the `collective` transport: pulls chunks from many sources over c10d,
straight into its tensors, several under way from each, and checks the digest of what arrived.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hpcore.collective_layout import ENTRY_BYTES, ByteRange
from hpcore.collective_source import CHUNK_BYTES, prefix, tag_of, wait_for
from hpcore.errors import CorruptData, DeadlineExceeded, HpcoreError, MismatchError, PeerDead

if TYPE_CHECKING:
    from torch import Tensor

MOST_TRIES = 3
"""Of one chunk that does not match its digest."""


@dataclass
class CollectiveStats:
    """What one pull did."""

    bytes: int = 0
    chunks: int = 0
    refetched: int = 0
    bytes_by_source: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Sources that were lost, and why."""
    seconds: float = 0.0


class CollectiveReceiver:
    """Pulls tensors from sources of one generation; see CollectiveSource for `groups`.

    window: chunks under way from each source. answer_limit_s: a source from which nothing comes
    for so long is given up, and its group with it: c10d has no other way to make sure that
    nothing is written later. One pull at a time.
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
        window: int = 3,
        answer_limit_s: float = 5.0,
    ) -> None:
        self._range = ByteRange(tensors, chunk_bytes)
        self._store, self._rank, self._generation = store, rank, generation
        self._groups = dict(groups)
        self._window, self._answer_limit_s = window, answer_limit_s
        self._keys = prefix(generation)
        self._lock = threading.Lock()  # guards what follows
        self._wanted: deque[int] = deque()
        self._open = 0  # chunks that are not proved
        self._tries: dict[int, int] = {}
        self._lost: dict[int, HpcoreError] = {}
        self._fatal: HpcoreError | None = None
        self._stats = CollectiveStats()

    def pull(self, timeout_s: float) -> CollectiveStats:
        """Blocks until everything arrived and is proved.

        Raises MismatchError (another layout), CorruptData (a chunk that matches from nobody,
        replicas that differ), PeerDead and DeadlineExceeded, which name the ranks.
        """
        begin = time.monotonic()
        deadline = begin + timeout_s
        digests = self._agree(deadline)
        self._wanted = deque(range(self._range.chunks))
        self._open = self._range.chunks
        self._stats = CollectiveStats(bytes=self._range.total, chunks=self._range.chunks)
        threads = [
            threading.Thread(target=self._pull_from, args=(source, digests, deadline))
            for source in self._groups
            if source not in self._lost
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._stats.notes = [str(error) for error in self._lost.values()]
        self._stats.seconds = time.monotonic() - begin
        if self._fatal is not None:
            raise self._fatal
        if self._open:
            raise self._unfinished(deadline)
        return self._stats

    def _unfinished(self, deadline: float) -> HpcoreError:
        done = self._range.chunks - self._open
        what = f"pulling the state of generation {self._generation}: {done} of "
        what += f"{self._range.chunks} chunks arrived"
        if time.monotonic() >= deadline:
            return DeadlineExceeded(f"{what} in time")
        reasons = "; ".join(str(error) for error in self._lost.values())
        return PeerDead(f"{what}, and no source is left: {reasons}")

    def _agree(self, deadline: float) -> bytes:
        """Layouts and digests of all sources that publish; sources that do not are lost."""
        mine = {"sizes": self._range.sizes, "chunk_bytes": self._range.chunk_bytes}
        found: dict[int, bytes] = {}
        for source in self._groups:
            limit_s = max(0.0, min(self._answer_limit_s, deadline - time.monotonic()))
            layout = wait_for(self._store, f"{self._keys}/layout/{source}", limit_s)
            digests = layout and wait_for(self._store, f"{self._keys}/digests/{source}", limit_s)
            if not layout or digests is None:
                self._lost[source] = self._silent(source, limit_s)
                continue
            theirs = json.loads(layout)
            if theirs != mine:
                raise MismatchError(_difference(source, theirs, mine))
            found[source] = bytes.fromhex(digests.decode())
        if not found:
            raise next(iter(self._lost.values()))
        first = next(iter(found))
        for source, digests in found.items():
            if digests != found[first]:
                raise CorruptData(_drift(first, found[first], source, digests))
        return found[first]

    def _silent(self, source: int, limit_s: float) -> HpcoreError:
        text = f"rank {source} published no state of generation {self._generation} within "
        text += f"{limit_s:.1f} s"
        latest = f"hpcore/collective/latest/{source}"
        if not self._store.check([latest]):
            return DeadlineExceeded(text)
        serves = int(self._store.get(latest))
        if serves == self._generation:
            return DeadlineExceeded(text)
        return MismatchError(f"{text}: it serves generation {serves}")

    def _take(self) -> int | None:
        with self._lock:
            return self._wanted.popleft() if self._wanted else None

    def _finished(self) -> bool:
        with self._lock:
            return self._open == 0 or self._fatal is not None

    def _pull_from(self, source: int, digests: bytes, deadline: float) -> None:
        under_way: deque[tuple[int, list[Any], list[Tensor]]] = deque()
        asked = 0
        try:
            while not self._finished() and time.monotonic() < deadline:
                chunk = self._take() if len(under_way) < self._window else None
                if chunk is not None:
                    under_way.append((chunk, *self._ask(source, asked, chunk)))
                    asked += 1
                elif under_way:
                    self._land(source, under_way, digests)
                else:  # all that is left is under way elsewhere
                    time.sleep(0.0005)
        except (RuntimeError, HpcoreError) as error:  # of the backend or the store
            self._lose(source, under_way, error)
        else:
            self._drain(source, under_way)
        self._leave(source)

    def _ask(self, source: int, number: int, chunk: int) -> tuple[list[Any], list[Tensor]]:
        import torch.distributed as dist

        buffers = self._range.messages(chunk)
        works = []
        for message, buffer in enumerate(buffers):
            tag = tag_of(number, message)
            work = dist.irecv(buffer, source, group=self._groups[source], tag=tag)
            if work is None:
                raise PeerDead(f"rank {source} is not in the group that leads to it")
            works.append(work)
        key = f"{self._keys}/ask/{source}/{self._rank}/{number}"
        self._store.set(key, json.dumps([chunk]))
        return works, buffers

    def _land(self, source: int, under_way: deque[Any], digests: bytes) -> None:
        chunk, works, buffers = under_way[0]
        for work in works:
            work.wait(timedelta(seconds=self._answer_limit_s))
        under_way.popleft()
        self._range.unpack(chunk, buffers)
        at = chunk * ENTRY_BYTES
        right = self._range.digest(chunk) == digests[at : at + ENTRY_BYTES]
        with self._lock:
            size = sum(buffer.numel() for buffer in buffers)
            by_source = self._stats.bytes_by_source
            by_source[source] = by_source.get(source, 0) + size
            if right:
                self._open -= 1
                return
            self._stats.refetched += 1
            self._tries[chunk] = self._tries.get(chunk, 0) + 1
            if self._tries[chunk] >= MOST_TRIES:
                self._fatal = CorruptData(
                    f"chunk {chunk} of {self._range.chunks} did not match its digest "
                    f"{MOST_TRIES} times, the last from rank {source}: the state changed while "
                    "it was served, or the way is bad"
                )
            self._wanted.append(chunk)  # at the end: another source may take it

    def _lose(self, source: int, under_way: deque[Any], error: Exception) -> None:
        late = "imed out" in str(error) or "imeout" in str(error)
        kind: type[HpcoreError] = DeadlineExceeded if late else PeerDead
        first = str(error).splitlines()[0]
        # Its group is broken by now: the backend writes to no buffer of it any more.
        self._drain(source, under_way)
        with self._lock:
            self._lost[source] = kind(f"rank {source} was lost while it sent state: {first}")
            self._wanted.extendleft(chunk for chunk, _, _ in under_way)

    def _drain(self, source: int, under_way: deque[Any]) -> None:
        """Nothing may be written after the pull: what is under way comes, or its group breaks."""
        for work in [work for _, works, _ in under_way for work in works]:
            with contextlib.suppress(RuntimeError):
                work.wait(timedelta(seconds=self._answer_limit_s))

    def _leave(self, source: int) -> None:
        try:
            self._store.set(f"{self._keys}/left/{source}/{self._rank}", "1")
        except RuntimeError:  # the store went with its host
            pass


def _difference(source: int, theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    if theirs["chunk_bytes"] != mine["chunk_bytes"]:
        return (
            f"rank {source} sends chunks of {theirs['chunk_bytes']} bytes, this process expects "
            f"{mine['chunk_bytes']}"
        )
    sizes, expected = theirs["sizes"], mine["sizes"]
    if len(sizes) != len(expected):
        return f"rank {source} holds {len(sizes)} tensors, this process {len(expected)}"
    pairs = enumerate(zip(sizes, expected, strict=True))
    at = next(number for number, (one, other) in pairs if one != other)
    return f"tensor {at} has {sizes[at]} bytes in rank {source}, {expected[at]} in this process"


def _drift(one: int, ones: bytes, other: int, others: bytes) -> str:
    chunks = range(len(ones) // ENTRY_BYTES)
    at = next(
        chunk
        for chunk in chunks
        if ones[chunk * ENTRY_BYTES :][:ENTRY_BYTES] != others[chunk * ENTRY_BYTES :][:ENTRY_BYTES]
    )
    return f"replicas differ: ranks {one} and {other} hold different bytes in chunk {at}"
