"""The processes of `hpcore bench stream`: sources that hold state and a receiver that pulls it.

Forked from a process without other threads; each obeys one command at a time over a pipe and dies
with its parent.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from hpcore import _core
from hpcore.agent.system import die_with_parent
from hpcore.errors import HpcoreError

HUGE = 2 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Holder:
    """What one process does. State lies in an arena, or in private memory on huge pages."""

    def __init__(self, segment: Any, slot: int, sizes: Sequence[int], in_arena: bool) -> None:
        own = _core.NodeSegment.attach(segment.fd)
        self._worker = _core.Worker.attach(own, slot, slot + 1)
        self._source: Any = None
        self._mappings = _core.ArenaMappings()
        self.arenas: list[Any] = []
        whole = sum(sizes)
        if in_arena:
            self._memory: Any = _core.Arena(whole)
            at = self._memory.place[2]
            self.arenas = [self._memory.place]
        else:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self._memory = mmap.mmap(-1, whole + HUGE, flags=flags)
            self._memory.madvise(mmap.MADV_HUGEPAGE)
            at = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
            at = (at + HUGE - 1) // HUGE * HUGE
        self.regions = []
        for size in sizes:
            self.regions.append((at, size))
            at += size

    def address(self) -> tuple[int, list[Any], list[Any]]:
        """pid, regions, arenas."""
        return os.getpid(), self.regions, self.arenas

    def fill(self, seed: int) -> None:
        """Content that tells positions apart: a block of noise, shifted by a byte each time."""
        block = bytes((i * 167 + seed * 31 + (i >> 8)) & 0xFF for i in range(1 << 16))
        at, end = self.regions[0][0], sum(self.regions[-1])
        for number, start in enumerate(range(at, end, 65535)):
            ctypes.memmove(start, block, min(65535, end - start))
            ctypes.memset(start, number & 0xFF, min(8, end - start))

    def digest(self) -> bytes:
        """Of all state."""
        size = sum(size for _, size in self.regions)
        view = (ctypes.c_char * size).from_address(self.regions[0][0])
        return bytes(_core.digest128(view))

    def publish(self, generation: int, index: int, sources: int, receiver: int) -> None:
        """Digests a share; receivers read from now on."""
        self._source = _core.StateSource(
            *(self._worker, generation, self.regions, 0, index, sources, [receiver])
        )
        self._source.publish()

    def map_arenas(self, pid: int, arenas: list[Any]) -> float:
        """Seconds it takes to map a source's arenas, which is done before it is needed."""
        begin = time.perf_counter()
        for place in arenas:
            self._mappings.open(pid, place)
        return time.perf_counter() - begin

    def pull(
        self,
        generation: int,
        sources: list[Any],
        threads: int,
        method: str,
        kill: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """Pulls; `kill`: (pid, bytes): kills that process when so many bytes have arrived."""
        places = [_core.SourceAddress(*source) for source in sources]
        receiver = _core.StateReceiver(
            *(self._worker, generation, self.regions, 0, places, threads, method),
            mappings=self._mappings,
        )
        if kill is not None:
            threading.Thread(target=_kill_at, args=(receiver, *kill), daemon=True).start()
        before = _reset_peak()
        stats = receiver.pull(120)
        names = ("bytes", "seconds", "bytes_by_source", "method", "refetched", "reread", "moved")
        found = {name: getattr(stats, name) for name in names}
        return {**found, "beyond_bytes": max(0, _peak() - before)}

    def memcpy(self, pid: int, regions: list[Any], arenas: list[Any]) -> float:
        """Seconds of one thread's memcpy of a source's arena, tensor by tensor."""
        fd, _, address, size = arenas[0]
        with open(f"/proc/{pid}/fd/{fd}", "rb") as file:
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            with mmap.mmap(file.fileno(), size, flags=flags, prot=mmap.PROT_READ) as view:
                held = _address_of(view)
                begin = time.perf_counter()
                for (to, length), (start, _) in zip(self.regions, regions, strict=True):
                    ctypes.memmove(to, held + start - address, length)
                return time.perf_counter() - begin

    def raw_read(self, pid: int, regions: list[Any]) -> float:
        """Seconds of one thread's process_vm_readv, one call a tensor of 1 MiB or more, else one
        for 1024 tensors."""
        step = 1024 if regions[0][1] < 1 << 20 else 1
        calls = [
            (_vectors(self.regions[first : first + step]), _vectors(regions[first : first + step]))
            for first in range(0, len(regions), step)
        ]
        begin = time.perf_counter()
        for mine, theirs in calls:
            done = _LIBC.process_vm_readv(pid, mine, len(mine), theirs, len(theirs), 0)
            if done != sum(vector.length for vector in mine):
                raise OSError(ctypes.get_errno(), "process_vm_readv of a source")
        return time.perf_counter() - begin


def _vectors(regions: Sequence[Any]) -> Any:
    return (_Vector * len(regions))(*(_Vector(*region) for region in regions))


def _address_of(view: mmap.mmap) -> int:
    """Where a read-only mapping lies."""
    import numpy

    return int(numpy.frombuffer(view, dtype=numpy.uint8).ctypes.data)


def _kill_at(receiver: Any, pid: int, at_bytes: int) -> None:
    while receiver.progress < at_bytes:
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)


def _status(name: str) -> int:
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) << 10 for line in stream if line.startswith(name))


def _reset_peak() -> int:
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")
    return _status("VmRSS:")


def _peak() -> int:
    return _status("VmHWM:")


class Actor:
    """One process, and commands to it."""

    def __init__(self, segment: Any, slot: int, sizes: Sequence[int], in_arena: bool) -> None:
        self.slot = slot
        segment.prepare_slot(slot, slot + 1)
        fork = multiprocessing.get_context("fork")
        self._pipe, theirs = fork.Pipe()
        self._process = fork.Process(
            target=_serve, args=(theirs, segment, slot, sizes, in_arena), daemon=True
        )
        self._process.start()
        theirs.close()
        self.pid, self.regions, self.arenas = self.ask("address")

    def send(self, name: str, *arguments: Any) -> None:
        """Starts a command."""
        self._pipe.send((name, arguments))

    def answer(self) -> Any:
        """Its result. Raises HpcoreError with the traceback of the process."""
        if not self._pipe.poll(180):
            raise HpcoreError(f"the process in slot {self.slot} did not answer within 180 s")
        try:
            good, value = self._pipe.recv()
        except EOFError:
            raise HpcoreError(f"the process in slot {self.slot} died") from None
        if not good:
            raise HpcoreError(f"the process in slot {self.slot} failed:\n{value}")
        return value

    def ask(self, name: str, *arguments: Any) -> Any:
        """Runs a command."""
        self.send(name, *arguments)
        return self.answer()

    def source(self, pace: tuple[int, float] | None = None) -> Any:
        """Arguments of a SourceAddress."""
        return (self.slot, self.pid, self.regions, self.arenas, pace)

    def end(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, *arguments: Any) -> None:
    die_with_parent()
    holder = Holder(*arguments)
    while True:
        try:
            name, values = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send((True, getattr(holder, name)(*values)))
        except Exception:
            pipe.send((False, traceback.format_exc()))
