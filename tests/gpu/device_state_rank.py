"""A process that holds state in the memory of a real GPU, for test_device_memory.py: obeys one JSON
command a line, answers with one."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from hpcore import _core, devices
from hpcore.errors import HpcoreError


class Holder:
    """The tensors of this process."""

    def __init__(self) -> None:
        self.device = devices.open_cuda()
        self.tensors: list[torch.Tensor] = []
        self.exported: Any = None

    def make(self, sizes: list[int], seed: int | None) -> list[tuple[int, int]]:
        generator = torch.Generator().manual_seed(seed or 0)
        on_host = [
            torch.randint(256, (size,), generator=generator, dtype=torch.uint8) for size in sizes
        ]
        if seed is None:
            on_host = [torch.zeros_like(tensor) for tensor in on_host]
        self.tensors = [tensor.cuda() for tensor in on_host]
        torch.cuda.synchronize()
        return self.regions()

    def regions(self) -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor.nbytes) for tensor in self.tensors]

    def export(self, generation: int) -> str:
        stream = torch.cuda.current_stream().cuda_stream
        self.exported = _core.CudaIpcExport(self.device, self.regions(), generation, stream)
        return str(self.exported.address.hex())

    def pull(self, address: str, generation: int) -> dict[str, Any]:
        memory = _core.RemoteMemory.over_cuda_ipc(
            self.device, bytes.fromhex(address), generation, self.regions()
        )
        total = sum(size for _, size in self.regions())
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        digest = memory.read_digested(0, total, self.regions(), 60.0)
        end.record()
        end.synchronize()
        seconds = begin.elapsed_time(end) / 1000
        return {"digest": digest.hex(), "method": memory.method, "gb_per_s": total / seconds / 1e9}

    def digest(self) -> str:
        content = b"".join(tensor.cpu().numpy().tobytes() for tensor in self.tensors)
        return str(_core.digest128(content).hex())


def main() -> None:
    holder = Holder()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer: Any = {"ok": getattr(holder, name)(*arguments)}
        except HpcoreError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
