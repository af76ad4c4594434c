"""A process whose memory is read, for the contract of remote memory: obeys one JSON line a command.

Run as ``python memory_peer.py SEGMENT_FD SLOT`` (0 0: without a segment).
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
import time
from typing import Any

from hpcore import _core
from hpcore.errors import HpcoreError

GUARD = 64
"""Bytes before and behind each region that nobody may touch."""

SMALL = 4096
"""Regions below this share an allocation of device memory, as torch's do."""


class Memory:
    """Regions of this process with guards around them, listed one or more times."""

    def __init__(self, sizes: list[int], seed: int | None, times: int = 1) -> None:
        self.sizes, self.times = sizes, times
        self.buffers = self.allocate([size + 2 * GUARD for size in sizes])
        for buffer in self.buffers:
            ctypes.memset(buffer, 0xA5, len(buffer))
        self.fill(seed)

    def allocate(self, sizes: list[int]) -> list[Any]:
        return [(ctypes.c_ubyte * size)() for size in sizes]

    def fill(self, seed: int | None) -> None:
        source = random.Random(seed)
        for view in self.views():
            view[:] = bytes(len(view)) if seed is None else source.randbytes(len(view))

    def views(self) -> list[memoryview]:
        return [
            memoryview(buffer).cast("B")[GUARD : GUARD + size]
            for buffer, size in zip(self.buffers, self.sizes, strict=True)
        ]

    def regions(self) -> list[tuple[int, int]]:
        return self.times * [
            (ctypes.addressof(buffer) + GUARD, size)
            for buffer, size in zip(self.buffers, self.sizes, strict=True)
        ]

    def content(self) -> bytes:
        """Of all regions, each once."""
        return b"".join(bytes(view) for view in self.views())

    def guards_untouched(self) -> bool:
        return all(
            bytes(buffer[:GUARD]) == b"\xa5" * GUARD and bytes(buffer[-GUARD:]) == b"\xa5" * GUARD
            for buffer in self.buffers
        )


class DeviceMemory(Memory):
    """The same in the memory of a loopback CUDA device, small regions in one allocation."""

    def __init__(self, device: Any, sizes: list[int], seed: int | None, times: int = 1) -> None:
        self.allocations: list[Any] = []
        self.device = device
        super().__init__(sizes, seed, times)

    def allocate(self, sizes: list[int]) -> list[Any]:
        small = sum(size for size in sizes if size < SMALL)
        pool = self._allocate(small) if small else 0
        buffers = []
        for size in sizes:
            at, pool = (pool, pool + size) if size < SMALL else (self._allocate(size), pool)
            buffers.append((ctypes.c_ubyte * size).from_address(at))
        return buffers

    def _allocate(self, size: int) -> int:
        self.allocations.append(_core.CudaBuffer(self.device, size))
        return int(self.allocations[-1].address)


class Peer:
    """What this process can be asked for."""

    def __init__(self, fd: int, slot: int) -> None:
        self.slot = slot
        self.segment = _core.NodeSegment.attach(fd) if fd else None
        self.memory: Memory
        self.server: Any = None
        self.fabric: Any = None
        self.source: Any = None
        self.worker: Any = None
        self.cuda: Any = None

    def make(self, sizes: list[int], seed: int, times: int) -> list[tuple[int, int]]:
        self.memory = Memory(sizes, seed, times)
        return self.memory.regions()

    def stage(self, generation: int) -> int:
        self.server = _core.StagingServer(
            self.segment, self.slot, self.memory.regions(), generation
        )
        return os.getpid()

    def expose(self, generation: int, options: dict[str, Any]) -> str:
        if self.server is None:
            self.fabric = _core.Fabric(**options)
            self.server = _core.FabricServer(self.fabric)
        return str(self.server.expose(self.memory.regions(), generation).hex())

    def to_device(self, cuda: str) -> list[tuple[int, int]]:
        """Moves the memory to the device of that double of libcuda."""
        host = self.memory
        self.cuda = _core.CudaDevice(library=cuda)
        self.memory = DeviceMemory(self.cuda, host.sizes, None, host.times)
        for to, content in zip(self.memory.views(), host.views(), strict=True):
            to[:] = content
        return self.memory.regions()

    def export_ipc(self, generation: int) -> str:
        self.server = _core.CudaIpcExport(self.cuda, self.memory.regions(), generation)
        return str(self.server.address.hex())

    def serve_nccl(
        self, generation: int, nccl: str, ids: list[str], options: dict[str, Any]
    ) -> str:
        if self.server is None:
            library = _core.NcclLibrary(nccl)
            self.server = _core.NcclServer(self.cuda, library, **options)
        known = [bytes.fromhex(unique_id) for unique_id in ids]
        return str(self.server.expose(self.memory.regions(), generation, known).hex())

    def offer_device(
        self, generation: int, index: int, sources: int, nccl: str, ids: list[str]
    ) -> dict[str, Any]:
        """A source of state in device memory: how it is reached, by CUDA IPC and over NCCL."""
        if self.worker is None:
            self.worker = _core.Worker.attach(self.segment, self.slot, self.slot + 1)
        if self.server is None:
            self.server = _core.NcclServer(self.cuda, _core.NcclLibrary(nccl), setup_limit_s=1.0)
        self.source = _core.StateSource(
            self.worker,
            generation,
            self.memory.regions(),
            0,
            index,
            sources,
            [],
            device=self.cuda,
            nccl_server=self.server,
            unique_ids=[bytes.fromhex(unique_id) for unique_id in ids],
        )
        told = {"nccl": self.source.nccl_address().hex(), "ipc": "", "why_not": ""}
        try:
            told["ipc"] = self.source.device_address().hex()
        except HpcoreError as error:
            told["why_not"] = str(error)
        return {**told, "slot": self.slot, "pid": os.getpid(), "regions": self.memory.regions()}

    def pull_device(
        self, generation: int, offers: list[dict[str, Any]], nccl: str, timeout_s: float
    ) -> dict[str, Any]:
        if self.worker is None:
            self.worker = _core.Worker.attach(self.segment, self.slot, self.slot + 1)
        library = _core.NcclLibrary(nccl, setup_limit_s=1.0, answer_limit_s=0.5)
        sources = [
            _core.SourceAddress(
                offer["slot"],
                offer["pid"],
                [(a, n) for a, n in offer["regions"]],
                device=bytes.fromhex(offer["ipc"]),
                nccl=bytes.fromhex(offer["nccl"]),
                unique_id=bytes.fromhex(offer["id"]),
            )
            for offer in offers
        ]
        receiver = _core.StateReceiver(
            self.worker,
            generation,
            self.memory.regions(),
            0,
            sources,
            device=self.cuda,
            nccl=library,
        )
        stats = receiver.pull(timeout_s)
        names = ("bytes", "chunks", "refetched", "bytes_by_source", "method", "notes")
        return {name: getattr(stats, name) for name in names}

    def fault(self, double: str, name: str, value: int) -> None:
        """Of a loopback double that this process has loaded."""
        library = ctypes.CDLL(double)
        assert library.loopback_fault(name.encode(), ctypes.c_long(value)) == 0

    def withdraw_generation(self, generation: int) -> None:
        self.server.withdraw(generation)

    def withdraw(self) -> None:
        self.server.withdraw(self.memory.regions())

    def close(self) -> None:
        self.server.close()

    def pull(self, address: str, generation: int, options: dict[str, Any]) -> dict[str, Any]:
        """Reads all of another peer's memory over a fabric, into this one's."""
        fabric = _core.Fabric(**options)
        regions = self.memory.regions()
        memory = _core.RemoteMemory.over_fabric(fabric, bytes.fromhex(address), generation, regions)
        total = sum(size for _, size in regions)
        begin = time.perf_counter()
        memory.read(0, total, regions)
        seconds = time.perf_counter() - begin
        names = {"method": memory.method, "note": memory.note, "fabric": fabric.describe()}
        return {**names, "bytes": total, "seconds": seconds}

    def flip(self, offset: int) -> None:
        """Changes one bit at an offset of the regions."""
        for view in self.memory.views():
            if offset < len(view):
                view[offset] ^= 1
                return
            offset -= len(view)

    def _worker(self) -> Any:
        """Of a node segment of this process's own, as if it were alone on its host."""
        if self.worker is None:
            self.segment = _core.NodeSegment.create(1, 1 << 16, 1 << 20)
            self.segment.prepare_slot(0, 1)
            self.worker = _core.Worker.attach(self.segment, 0, 1)
        return self.worker

    def open_source(
        self, generation: int, index: int, sources: int, options: dict[str, Any]
    ) -> str:
        if self.server is None:
            self.server = _core.FabricServer(_core.Fabric(**options))
        self.source = _core.StateSource(
            self._worker(),
            generation,
            self.memory.regions(),
            0,
            index,
            sources,
            [],
            server=self.server,
        )
        return str(self.source.remote_address().hex())

    def publish(self) -> int:
        return int(self.source.publish().bytes)

    def pull_state(
        self, generation: int, addresses: list[str], options: dict[str, Any], timeout_s: float
    ) -> dict[str, Any]:
        sources = [
            _core.SourceAddress(number, 0, self.memory.regions(), remote=bytes.fromhex(address))
            for number, address in enumerate(addresses)
        ]
        if self.fabric is None:
            self.fabric = _core.Fabric(**options)
        receiver = _core.StateReceiver(
            self._worker(), generation, self.memory.regions(), 0, sources, fabric=self.fabric
        )
        stats = receiver.pull(timeout_s)
        names = (
            "bytes",
            "chunks",
            "refetched",
            "moved",
            "bytes_by_source",
            "method",
            "notes",
            "seconds",
        )
        return {name: getattr(stats, name) for name in names}

    def digest(self) -> str:
        return str(_core.digest128(self.memory.content()).hex())


def main() -> None:
    peer = Peer(int(sys.argv[1]), int(sys.argv[2]))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer: Any = {"ok": getattr(peer, name)(*arguments)}
        except HpcoreError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
