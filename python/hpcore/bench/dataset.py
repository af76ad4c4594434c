"""``hpcore bench dataset``: shuffled batches, the first one after a restart, against peers.

200 MB of uint16 tokens, sequence 1,024, batch 32, shuffled, int64 out. Every batch of the first
pass is compared with the tokens that were written.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpcore
from hpcore.bench.result import Report, Result
from hpcore.errors import CorruptData, NotFound

SEQUENCE, BATCH = 1024, 32
PEERS = (
    "memmap",
    "memmap/workers=2",
    "stateful",
    "megatron",
    "grain",
    "datasets",
    "litdata",
    "streaming",
)
"""DataLoader over numpy.memmap; torchdata's StatefulDataLoader; Megatron-LM's way (index arrays);
Grain; Hugging Face datasets; LitData; mosaicml-streaming."""


@dataclass(frozen=True)
class DatasetOptions:
    """What is measured, and how long."""

    mib: int = 191
    rounds: int = 5
    resumes: int = 200
    peers: bool = False
    peers_python: str = ""
    say: Callable[[str], None] = print


def measure(options: DatasetOptions) -> Report:
    """Runs all cases. Raises NotFound if peers are wanted and there is no checkout."""
    report = Report("dataset")
    with tempfile.TemporaryDirectory(prefix="hpcore-bench-") as name:
        path = _tokens(options, Path(name))
        speed, resume = _batches(report, path, options), _resume(report, path, options)
        _order(report)
        _checksums(report, path, options)
        if options.peers:
            _peers(report, speed, resume, path, options)
    return report


def _tokens(options: DatasetOptions, folder: Path) -> Path:
    """The folder, with the same tokens in tokens.bin and tokens.hpd."""
    import numpy as np

    from hpcore import dataset

    options.say(f"making {options.mib} MiB of tokens")
    raw = folder / "tokens.bin"
    tokens = np.random.default_rng(1).integers(0, 50_257, options.mib << 19, dtype=np.uint16)
    tokens.tofile(raw)
    dataset.build([raw], folder / "tokens.hpd", format="nanogpt", dtype="uint16")
    return folder


def _epoch(data: Any, out: Any, steps: int) -> float:
    """Tokens a second over an epoch's batches."""
    begin = time.perf_counter()
    for step in range(steps):
        data.read(7, step * BATCH, BATCH, True, out)
    return steps * BATCH * SEQUENCE / (time.perf_counter() - begin)


def _batches(report: Report, path: Path, options: DatasetOptions) -> Result:
    import numpy as np
    import torch

    from hpcore.dataset import MappedDataset

    options.say("shuffled batches")
    data = MappedDataset(path / "tokens.hpd", SEQUENCE)
    tokens = np.memmap(path / "tokens.bin", dtype=np.uint16, mode="r")
    steps = len(data) // BATCH
    for step in range(steps):
        batch = data.read(7, step * BATCH, BATCH)
        for row, sample in zip(batch, data.samples_at(7, step * BATCH, BATCH), strict=True):
            wanted = tokens[sample * SEQUENCE : sample * SEQUENCE + SEQUENCE + 1]
            if not np.array_equal(row.numpy(), wanted):
                raise CorruptData(f"step {step}, sample {sample}: not the tokens that were written")
    ring = torch.empty((BATCH, SEQUENCE + 1), dtype=torch.int64)
    fresh, reused, limit = [], [], []
    for _ in range(options.rounds):
        fresh.append(_epoch(data, None, steps))
        reused.append(_epoch(data, ring, steps))
        limit.append(_memcpy_limit())
    for case, samples in (("shuffled/int64", fresh), ("shuffled/int64/out", reused)):
        result = report.add(Result(case, "tokens_per_s", "1/s", samples))
        result.hold_against("memcpy", limit, "10 bytes moved a token")
    return report.results[0]


def _memcpy_limit() -> float:
    """Tokens a second if 2 bytes read and 8 written a token went as fast as memcpy does."""
    import numpy as np

    source, target = (np.full(64 << 20, i, dtype=np.uint8) for i in (1, 2))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - begin)
    return 2 * source.nbytes / sorted(times)[2] / 10


def _resume(report: Report, path: Path, options: DatasetOptions) -> Result:
    from hpcore.dataset import MappedDataset

    options.say("the first batch after a restart")
    data = MappedDataset(path / "tokens.hpd", SEQUENCE)
    draw = random.Random(1)

    def first_batch(data: Any, step: int) -> None:
        loader = data.loader(BATCH, seed=7, rank=0, world_size=1)
        loader.step = step
        next(iter(loader))

    open_file, anew, anywhere = [], [], []
    for _ in range(options.resumes):
        begin = time.perf_counter()
        first_batch(data, 1500)
        open_file.append(time.perf_counter() - begin)
        step = draw.randrange(10**6)
        begin = time.perf_counter()
        first_batch(data, step)
        anywhere.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        with MappedDataset(path / "tokens.hpd", SEQUENCE) as opened:
            first_batch(opened, 1500)
        anew.append(time.perf_counter() - begin)
    result = report.add(Result("resume/step=1500", "first_batch", "s", open_file))
    report.add(Result("resume/any-step", "first_batch", "s", anywhere))
    report.add(Result("resume/step=1500/opened-anew", "first_batch", "s", anew))
    return result


def _order(report: Report) -> None:
    from hpcore.dataset import Permutation

    times = []
    for seed in range(200):
        begin = time.perf_counter()
        Permutation(10**9, seed, 0)(123_456_789)
        times.append(time.perf_counter() - begin)
    result = report.add(Result("shuffle/samples=1e9", "startup", "s", times))
    import numpy as np

    begin = time.perf_counter()
    np.random.default_rng(1).permutation(10**7)
    each = time.perf_counter() - begin
    result.hold_against("numpy", [each * 100], "permutation of 1e7, times 100; 8 GB of index")


def _checksums(report: Report, path: Path, options: DatasetOptions) -> None:
    from hpcore.dataset import MappedDataset

    on = MappedDataset(path / "tokens.hpd", SEQUENCE)
    off = MappedDataset(path / "tokens.hpd", SEQUENCE, verify=False)
    steps = len(on) // BATCH
    checked, plain = [], []
    for _ in range(options.rounds + 1):
        checked.append(_epoch(on, None, steps))
        plain.append(_epoch(off, None, steps))
    result = report.add(Result("checksums/on", "tokens_per_s", "1/s", checked[1:]))
    result.hold_against("checksums/off", plain[1:])


def _peers(
    report: Report, speed: Result, resume: Result, path: Path, options: DatasetOptions
) -> None:
    driver = Path(hpcore.__file__).resolve().parents[2] / "bench" / "peers" / "dataset_peer.py"
    if not driver.exists():
        raise NotFound(f"--peers needs a checkout: there is no {driver}")
    for name in PEERS:
        options.say(f"peer {name}")
        command = [options.peers_python or sys.executable, str(driver), name, str(path / name[:4])]
        command += [str(path / "tokens.bin"), str(min(options.rounds, 3))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=150)
        except subprocess.TimeoutExpired:
            report.notes.append(f"{name} was not through after 150 s")
            continue
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
            report.notes.append(f"{name} could not be run: {last[0][:200]}")
            continue
        found = json.loads(lines[-1])
        speed.hold_against(name, found["tokens_per_s"])
        resume.hold_against(name, found["first_batch"])
