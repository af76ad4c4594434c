"""CUDA tensors through the hpcore backend: torch's real NCCL group, brought up by our store.

One rank for each GPU (NCCL refuses two on one); with one GPU a world of one. Each rank is started
afresh: CUDA does not survive a fork.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "cuda_ranks.py"


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


@pytest.mark.parametrize("backend", ["hpcore", "cpu:hpcore,cuda:nccl"])
def test_cuda_and_cpu_tensors_in_one_group(backend: str) -> None:
    world_size = min(gpus(), 4)
    environment = {**os.environ, "WORLD_SIZE": str(world_size), "MASTER_PORT": str(os.getpid())}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), backend],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        said = [rank.communicate(timeout=100)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0] * world_size, said
    total = world_size * (world_size + 1) / 2
    for text in said:
        assert f"cuda {total} cpu {total} again {total}" in text
