"""A process that holds state, for the tests of the state room: obeys one JSON command a line.

Run as ``python state_peer.py FD SLOT INCARNATION``; answers each command with one JSON line.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import random
import signal
import struct
import sys
import threading
import time
from typing import Any

from hpcore import _core
from hpcore.errors import HpcoreError

GUARD = 64
"""Bytes before and behind each region that nobody may touch."""


class Peer:
    """The regions of this process and what can be asked of it."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.buffers: list[Any] = []
        self.sizes: list[int] = []
        self.source: Any = None
        self.arena: Any = None
        self.mappings = _core.ArenaMappings()
        self.listed = 1

    def _views(self) -> list[memoryview]:
        return [
            memoryview(buffer).cast("B")[GUARD : GUARD + size]
            for buffer, size in zip(self.buffers, self.sizes, strict=True)
        ]

    def make(self, sizes: list[int], seed: int | None, where: str = "heap") -> list[list[int]]:
        """Allocates the regions, filled from a seed (None: zeros); returns addresses and sizes.

        where: "heap", "arena", or "mixed": every second region in an arena.
        """
        self.sizes = sizes
        types = [ctypes.c_ubyte * (size + 2 * GUARD) for size in sizes]
        if where == "heap":
            self.buffers = [kind() for kind in types]
        else:
            self.arena = _core.Arena(sum(sizes) + 2 * GUARD * len(sizes))
            at = self.arena.place[2]
            self.buffers = []
            for number, kind in enumerate(types):
                in_arena = where == "arena" or number % 2 == 0
                self.buffers.append(kind.from_address(at) if in_arena else kind())
                at += ctypes.sizeof(kind)
        for buffer in self.buffers:
            ctypes.memset(buffer, 0xA5, len(buffer))
        source = random.Random(seed)
        for view in self._views():
            view[:] = bytes(len(view)) if seed is None else source.randbytes(len(view))
        return self.regions()

    def repeat(self, times: int) -> list[list[int]]:
        """Lists the same regions many times: a huge range in little memory."""
        self.listed = times
        return self.regions()

    def regions(self) -> list[list[int]]:
        return self.listed * [
            [ctypes.addressof(buffer) + GUARD, size]
            for buffer, size in zip(self.buffers, self.sizes, strict=True)
        ]

    def use_huge_pages(self) -> int:
        return int(_core.use_huge_pages([(address, size) for address, size in self.regions()]))

    def copy_seconds(self) -> float:
        """How long one memcpy of the whole state takes, into memory of the same kind."""
        whole = sum(self.sizes)
        with mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as target:
            view = ctypes.c_char.from_buffer(target)
            address = ctypes.addressof(view)
            _core.use_huge_pages([(address, whole)])
            ctypes.memset(address, 1, whole)
            begin = time.perf_counter()
            for start, size in self.regions():
                ctypes.memmove(address, start, size)
                address += size
            seconds = time.perf_counter() - begin
            del view
        return seconds

    def digest(self) -> str:
        whole = b"".join(bytes(view) for view in self._views())
        return str(_core.digest128(whole).hex())

    def guards_untouched(self) -> bool:
        return all(
            bytes(buffer)[:GUARD] == b"\xa5" * GUARD and bytes(buffer)[-GUARD:] == b"\xa5" * GUARD
            for buffer in self.buffers
        )

    def flip(self, offset: int) -> None:
        """Changes one bit at an offset of the virtual range."""
        for view in self._views():
            if offset < len(view):
                view[offset] ^= 1
                return
            offset -= len(view)

    def open(self, generation: int, index: int, sources: int, receivers: list[int]) -> None:
        self.source = _core.StateSource(
            self.worker, generation, self.regions(), 0, index, sources, receivers
        )

    def publish(self, *arguments: Any) -> int:
        if arguments:
            self.open(*arguments)
        return int(self.source.publish().bytes)

    def forbid_reading(self) -> None:
        """Makes process_vm_readv fail with EPERM in this process, as a container's seccomp does."""
        number = {"x86_64": 310, "aarch64": 270}[platform.machine()]
        load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
        deny, allow = 0x00050000 | errno.EPERM, 0x7FFF0000
        code = [(load, 0, 0, 0), (equal, 0, 1, number), (give, 0, 0, deny), (give, 0, 0, allow)]
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in code))
        header = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
        libc = ctypes.CDLL(None, use_errno=True)
        set_no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
        assert libc.prctl(set_no_new_privileges, 1, 0, 0, 0) == 0
        assert libc.prctl(set_seccomp, filter_mode, ctypes.c_char_p(header), 0, 0) == 0

    def close_source(self) -> None:
        self.source.close()

    def arenas(self) -> list[Any]:
        """Where others find this process's arena."""
        return [] if self.arena is None else [list(self.arena.place)]

    def pull(
        self,
        generation: int,
        sources: list[Any],
        timeout_s: float,
        method: str,
        times: int = 1,
        **options: Any,
    ) -> dict[str, Any]:
        """Pulls; `kill`: [pid, bytes]: kills a process when so many bytes have arrived."""
        kill = options.pop("kill", None)
        addresses = [
            _core.SourceAddress(
                slot,
                pid,
                [tuple(region) for region in regions],
                [tuple(place) for place in (more[0] if more else [])],
                tuple(more[1]) if len(more) > 1 and more[1] else None,
            )
            for slot, pid, regions, *more in sources
        ]
        threads = options.pop("threads", 2)
        plan = [tuple(share) for share in options.pop("plan", [])]
        for _ in range(times):
            receiver = _core.StateReceiver(
                *(self.worker, generation, self.regions(), 0, addresses, threads, method),
                plan=plan,
                mappings=self.mappings,
                **options,
            )
            killer = threading.Thread(target=_kill_at, args=(receiver, *kill)) if kill else None
            if killer is not None:
                killer.start()
            stats = receiver.pull(timeout_s)
            if killer is not None:
                killer.join()
            assert receiver.progress == stats.bytes
        names = ("bytes", "chunks", "refetched", "bytes_by_source", "method", "seconds")
        more_names = ("moved", "reread", "notes")
        return {name: getattr(stats, name) for name in names + more_names}

    def map_arenas(self, sources: list[Any]) -> int:
        """Maps the arenas of sources ahead of a pull; returns the bytes that are mapped."""
        for _, pid, _, arenas, *_ in sources:
            for place in arenas:
                self.mappings.open(pid, tuple(place))
        return int(self.mappings.mapped_nbytes)

    def footprint(self) -> dict[str, int]:
        """Peak memory (resets the peak), threads and descriptors."""
        with open("/proc/self/status") as stream:
            fields = dict(line.split(":", 1) for line in stream)
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")
        return {
            "peak_kib": int(fields["VmHWM"].split()[0]),
            "rss_kib": int(fields["VmRSS"].split()[0]),
            "threads": int(fields["Threads"]),
            "descriptors": len(os.listdir("/proc/self/fd")),
        }


def _kill_at(receiver: Any, pid: int, at_bytes: int) -> None:
    while receiver.progress < at_bytes:
        time.sleep(0.0002)
    os.kill(pid, signal.SIGKILL)


def main() -> None:
    fd, slot, incarnation = map(int, sys.argv[1:])
    segment = _core.NodeSegment.attach(fd)
    peer = Peer(_core.Worker.attach(segment, slot, incarnation))
    for line in sys.stdin:
        name, arguments, options = json.loads(line)
        try:
            answer: Any = {"ok": getattr(peer, name)(*arguments, **options)}
        except HpcoreError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
