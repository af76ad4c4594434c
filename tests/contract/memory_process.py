"""The other end of memory_peer.py, and the transports that the contract is held against."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcore import _core, errors

sys.path.insert(0, str(Path(__file__).parents[1] / "doubles"))
import building

PEER = Path(__file__).with_name("memory_peer.py")
GENERATION = 3
ANSWER_LIMIT_S = 0.5


@dataclass(frozen=True)
class Transport:
    """One way to read another process's memory."""

    name: str
    method: str = ""  # of RemoteMemory.of_process; empty: over a fabric
    fabric: dict[str, Any] = field(default_factory=dict)
    device: str = ""  # of device memory, of loopback doubles: "cuda-ipc" or "nccl"
    lane: dict[str, int] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        return {
            "library": os.environ.get("HPCORE_LIBFABRIC", ""),
            "answer_limit_s": ANSWER_LIMIT_S,
            **self.fabric,
        }

    @property
    def has_server(self) -> bool:
        """Whether the other process must do something, and so can stop doing it."""
        return self.method != "process_vm_readv" and self.device != "cuda-ipc"

    def why_not(self) -> str | None:
        """Why it cannot be had on this machine."""
        if self.method:
            return None
        if self.device:
            building.library("nccl")  # skips where it cannot be built
            return None
        try:
            _core.Fabric(**self.options())
        except (errors.NotFound, errors.Unsupported) as error:
            return str(error)
        return None


_LOOPBACK = {"provider": "tcp", "domains": ["lo"]}
TRANSPORTS = [
    Transport("process_vm_readv", "process_vm_readv"),
    Transport("staging", "staging"),
    Transport("tcp", fabric=_LOOPBACK),
    Transport("tcp-small", fabric={**_LOOPBACK, "piece_bytes": 5000, "window_bytes": 12000}),
    Transport("tcp-polling", fabric={**_LOOPBACK, "without": ["waiting"]}),
    Transport("tcp-bounce", fabric={**_LOOPBACK, "without": ["direct", "vectors"]}),
    Transport("tcp-rxm", fabric={"provider": "tcp;ofi_rxm", "domains": ["lo"]}),
    Transport("shm", fabric={"provider": "shm"}),
    Transport("cuda-ipc", device="cuda-ipc"),
    Transport("cuda-ipc-small", device="cuda-ipc", lane={"piece_bytes": 5000, "slots": 2}),
    Transport("nccl", device="nccl"),
    Transport("nccl-small", device="nccl", lane={"piece_bytes": 5000, "slots": 2}),
]


class Process:
    """A peer, ended with its process."""

    def __init__(self, segment: Any = None, slot: int = 0, prefix: Sequence[str] = ()) -> None:
        fd = segment.fd if segment is not None else 0
        self.segment, self.slot = segment, slot
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(PEER), str(fd), str(slot)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[fd] if fd else [],
            text=True,
        )
        self.regions: list[tuple[int, int]] = []
        self.on_device = False

    def send(self, name: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the peer died"
        return json.loads(line)  # type: ignore[no-any-return]

    def ask(self, name: str, *arguments: Any) -> Any:
        self.send(name, *arguments)
        answer = self.answer()
        assert "ok" in answer, answer
        return answer["ok"]

    def make(self, sizes: list[int], seed: int, times: int = 1) -> None:
        self.regions = [(a, n) for a, n in self.ask("make", sizes, seed, times)]

    def serve(self, transport: Transport) -> Any:
        """What a reader needs to know."""
        if transport.method == "staging":
            return self.ask("stage", GENERATION)
        if transport.method:
            return self.process.pid
        if transport.device:
            return self.serve_device(transport)
        return self.ask("expose", GENERATION, transport.options())

    def serve_device(self, transport: Transport, generation: int = GENERATION) -> Any:
        """Its memory, moved to a device; for nccl with unique ids for three receivers."""
        if not self.on_device:
            moved = self.ask("to_device", building.library("cuda"))
            self.regions, self.on_device = [(a, n) for a, n in moved], True
        if transport.device == "cuda-ipc":
            return self.ask("export_ipc", generation), []
        double = building.library("nccl")
        ids = [_core.NcclLibrary(double).unique_id() for _ in range(3)]
        options = {"setup_limit_s": 5.0, **transport.lane}
        hexes = [unique_id.hex() for unique_id in ids]
        return self.ask("serve_nccl", generation, double, hexes, options), ids

    def fault(self, double: str, name: str, value: int) -> None:
        self.ask("fault", building.library(double), name, value)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        # The shm provider keeps files by name; a killed process leaves them.
        for file in Path("/dev/shm").glob(f"*{self.process.pid}*"):
            with contextlib.suppress(FileNotFoundError):
                file.unlink()


def reader(transport: Transport, peer: Process, place: Any, regions: list[tuple[int, int]]) -> Any:
    """Opens the peer's memory; `regions`: what it is expected to look like."""
    if transport.method:
        return _core.RemoteMemory.of_process(
            peer.process.pid, peer.regions, transport.method, peer.segment, peer.slot, GENERATION
        )
    if transport.device:
        return device_reader(transport, place, regions)
    fabric = _core.Fabric(**transport.options())
    return _core.RemoteMemory.over_fabric(fabric, bytes.fromhex(place), GENERATION, regions)


def device_reader(
    transport: Transport, place: Any, regions: Any, generation: int = GENERATION
) -> Any:
    """The same for device memory; takes one of the place's unique ids."""
    address, ids = bytes.fromhex(place[0]), place[1]
    device = _core.CudaDevice(library=building.library("cuda"))
    limits = {"answer_limit_s": ANSWER_LIMIT_S, "slots": transport.lane.get("slots", 0)}
    if transport.device == "cuda-ipc":
        pieces = transport.lane.get("piece_bytes", 0)
        return _core.RemoteMemory.over_cuda_ipc(
            device, address, generation, regions, piece_bytes=pieces, **limits
        )
    nccl = _core.NcclLibrary(building.library("nccl"))
    return _core.RemoteMemory.over_nccl(
        device, nccl, address, generation, regions, ids.pop(), setup_limit_s=5.0, **limits
    )
