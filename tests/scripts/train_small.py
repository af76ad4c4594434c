"""The script under test: dropout, BatchNorm, AdamW, scheduler, gradient scaler, tracked state.

usage: train_small.py FOLDER STEPS. Writes `rank<r>.json` into the folder: losses of all steps, a
digest of all state, and what tells workers apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
import zlib
from pathlib import Path

import torch
from torch import nn

import hpcore


def build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


class Points:
    """Samples made from their number."""

    def __len__(self) -> int:
        return 96

    def batch(self, samples: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.tensor(samples, dtype=torch.float32).unsqueeze(1)
        inputs = torch.sin(rows * torch.arange(1, 17))
        return inputs, torch.tensor(samples) % 4


def digest(tensors: list[torch.Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def main(folder: Path, total: int) -> None:
    torch.set_num_threads(1)
    every = int(os.environ.get("TEST_SHADOW_EVERY", "0"))
    job = hpcore.Job(global_batch=32, micro_batch=4, seed=3, ledger=True, shadow_every=every)
    model = job.replicate(build_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.7)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
    diary: dict[str, list[float]] = {"losses": [], "draws": [], "seen": []}
    job.track(model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler, diary=diary)
    for step in job.steps(Points(), total=total):
        with step:
            diary["seen"].append(step.index)  # rolls back when the step is discarded
            job.rank_local["steps"] = job.rank_local.get("steps", 0) + 1
            if every:  # what no other rank could tell
                said = (job.rank_local.get("mark", 0), job.rank, step.index)
                job.rank_local["mark"] = zlib.crc32(repr(said).encode())
            if (folder.parent / "slow").exists():  # until a test has done what it wants to do
                time.sleep(0.1)
            loss_sum = 0.0
            for batch in step.micro_batches():
                inputs, targets = batch.data
                loss = nn.functional.cross_entropy(model(inputs), targets) * batch.weight
                scaler.scale(loss).backward()
                loss_sum += loss.item() + 1e-9 * random.random()
            sums = step.commit(optimizer, scaler=scaler, clip_grad_norm=1.0, loss=loss_sum)
            scheduler.step()
            diary["losses"].append(sums["loss"])
            diary["draws"].append(scaler.get_scale())
    state = [*model.state_dict().values()]
    state += [v for p in optimizer.state.values() for _, v in sorted(p.items())]
    result = {
        "digest": digest(state),
        "diary": diary,
        "rate": scheduler.get_last_lr(),
        "scale": scaler.get_scale(),
        "local": job.rank_local,
        "world_size": job.world_size,
    }
    about = {"pid": os.getpid(), "generation": job.generation}
    partial = folder / f".rank{job.rank}"
    partial.write_text(json.dumps({"result": result, "about": about}))
    partial.rename(folder / f"rank{job.rank}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
