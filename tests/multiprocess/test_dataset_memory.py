"""A second rank on a node: what it costs in memory of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hpcore import dataset

MIB = 1 << 20

READER = """
import sys
import torch
from hpcore.dataset import MappedDataset
from hpcore.agent.memory import private_bytes
import os

path, mode = sys.argv[1], sys.argv[2]
out = torch.empty((32, 1025), dtype=torch.int64).fill_(1)
MappedDataset(sys.argv[3], 8).read(1, 0, 4)  # code is loaded, allocators are warm
before = private_bytes(os.getpid())
data = MappedDataset(path, 1024, mode=mode)
total = 0
for step in range(len(data) // 32):
    total += int(data.read(1, step * 32, 32, out=out)[0, 0])
print(private_bytes(os.getpid()) - before, flush=True)
sys.stdin.readline()
"""


def reader(path: Path, mode: str, small: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, str(path), mode, str(small)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_second_rank_takes_two_mib_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(bytes(range(256)) * (48 * MIB // 512))
    path, small = tmp_path / "tokens.hpd", tmp_path / "small.hpd"
    dataset.build_text([tmp_path / "text"], path, dtype="uint16")
    dataset.build_text([tmp_path / "text"], small, max_bytes=4096)
    running: list[subprocess.Popen[str]] = []
    try:
        for mode in ("map", "map", "read"):  # each stays, so that the next is not the first
            process = reader(path, mode, small)
            running.append(process)
            assert process.stdout
            private = int(process.stdout.readline())
            if len(running) > 1:
                assert private <= 2 * MIB, (mode, private)
    finally:
        for process in running:
            process.communicate("\n", timeout=60)
