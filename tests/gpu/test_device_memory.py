"""Device memory on a real GPU: CUDA IPC between two processes, NCCL as far as one GPU allows.

NCCL refuses two ranks on one GPU, so its transport runs for real only with two; with one GPU a
communicator of one rank is brought up and aborted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcore import _core, devices, errors

HOLDER = Path(__file__).with_name("device_state_rank.py")
SIZES = [64 << 20, 7, 4096, *([4096] * 200), (16 << 20) + 5]
GENERATION = 3


def gpus() -> int:
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(gpus() == 0, reason="needs a GPU that torch can use"),
]


class Holder:
    def __init__(self, gpu: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HOLDER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)},
        )

    def ask(self, name: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer.get("ok", answer)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    made = [Holder(), Holder()]
    yield made
    for holder in made:
        holder.end()


def test_two_processes_on_one_gpu_read_each_other_by_cuda_ipc(holders: list[Holder]) -> None:
    source, receiver = holders
    source.ask("make", SIZES, 11)
    receiver.ask("make", SIZES, None)
    told = receiver.ask("pull", source.ask("export", GENERATION), GENERATION)
    assert told["method"] == "cuda-ipc", told
    assert told["digest"] == source.ask("digest") == receiver.ask("digest")
    print(f"CUDA IPC, digest included: {told['gb_per_s']:.1f} GB/s")


def test_source_that_was_killed_is_said_to_be_gone(holders: list[Holder]) -> None:
    source, receiver = holders
    source.ask("make", SIZES, 11)
    receiver.ask("make", SIZES, None)
    address = source.ask("export", GENERATION)
    source.end()
    told = receiver.ask("pull", address, GENERATION)
    assert told["error"] == "PeerDead", told


def test_memory_of_another_generation_is_refused(holders: list[Holder]) -> None:
    source, receiver = holders
    source.ask("make", SIZES, 11)
    receiver.ask("make", SIZES, None)
    told = receiver.ask("pull", source.ask("export", GENERATION), GENERATION + 1)
    assert told["error"] == "MismatchError", told


def test_two_ranks_on_one_gpu_are_refused_by_nccl_and_said() -> None:
    """The real libnccl: nonblocking init, an error, abort."""
    device, nccl = devices.open_cuda(), devices.open_nccl()
    buffer = _core.CudaBuffer(device, 4096)
    regions = [(buffer.address, buffer.nbytes)]
    server = _core.NcclServer(device, nccl, setup_limit_s=2.0)
    unique_id = nccl.unique_id()
    address = server.expose(regions, GENERATION, [unique_id])
    with pytest.raises(
        errors.HpcoreError, match="NCCL"
    ):  # two ranks on one GPU: NCCL's own refusal
        _core.RemoteMemory.over_nccl(
            device, nccl, address, GENERATION, regions, unique_id, setup_limit_s=5.0
        )
    server.close()


@pytest.mark.skipif(gpus() < 2, reason="NCCL refuses two ranks on one GPU: needs two")
def test_state_moves_over_nccl_between_two_gpus() -> None:
    source, receiver = (devices.open_cuda(ordinal=number) for number in range(2))
    nccl = devices.open_nccl()
    held = _core.CudaBuffer(source, 64 << 20)
    mine = _core.CudaBuffer(receiver, 64 << 20)
    server = _core.NcclServer(source, nccl)
    unique_id = nccl.unique_id()
    address = server.expose([(held.address, held.nbytes)], GENERATION, [unique_id])
    memory = _core.RemoteMemory.over_nccl(
        receiver, nccl, address, GENERATION, [(mine.address, mine.nbytes)], unique_id
    )
    arrived = memory.read_digested(0, mine.nbytes, [(mine.address, mine.nbytes)])
    assert arrived == memory.digest(0, mine.nbytes)
    server.close()
