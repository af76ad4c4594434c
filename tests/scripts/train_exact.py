"""The script under test: exact mode with dropout, BatchNorm, a bfloat16 layer, clipping, AdamW.

usage: train_exact.py FOLDER STEPS [plain | open]. Writes `rank<r>.json` into the folder: the bits
of the last losses and gradient norms, a hash of all, and a digest of all state. `plain`: without
exact mode. `open`: ends, on all ranks after the same step, when there is a file FOLDER/end; slowly.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path

import torch
from torch import nn
from train_small import digest

import hpcore


class Model(nn.Module):
    """Its middle is in bfloat16, and so are the middle's gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(16, 48), nn.BatchNorm1d(48), nn.GELU())
        self.middle = nn.Linear(48, 48).bfloat16()
        self.back = nn.Sequential(nn.Dropout(0.2), nn.Linear(48, 5))
        self.seldom = nn.Linear(16, 5, bias=False)

    def forward(self, inputs: torch.Tensor, seldom: bool) -> torch.Tensor:
        hidden = self.middle(self.front(inputs).bfloat16()).float()
        out: torch.Tensor = self.back(hidden)
        return out + self.seldom(inputs) if seldom else out


class Points:
    """Samples made from their number, of very different sizes."""

    def __len__(self) -> int:
        return 97

    def batch(self, samples: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.tensor(samples, dtype=torch.float32).unsqueeze(1)
        scale = torch.pow(2.0, (rows * 7) % 41 - 30)
        return torch.sin(rows * torch.arange(1, 17)) * scale, torch.tensor(samples) % 5


def main(folder: Path, total: int, kind: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    job = hpcore.Job(global_batch=36, micro_batch=3, seed=11, exact=kind != "plain")
    model = job.replicate(Model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 + step % 5)
    diary: dict[str, str] = {"all": ""}
    job.track(optimizer=optimizer, scheduler=scheduler, diary=diary)
    for step in job.steps(Points(), total=total):
        with step:
            losses: list[float] = []
            for batch in step.micro_batches():
                inputs, targets = batch.data
                seldom = batch.index == step.index % 12
                out = model(inputs + 1e-3 * random.random(), seldom)
                loss = nn.functional.cross_entropy(out, targets) * step.weight(batch)
                loss.backward()
                losses.append(loss.item())
            if kind == "open":
                time.sleep(0.03)
            end = int((folder / "end").exists())
            sums = step.commit(optimizer, clip_grad_norm=0.5, loss=losses, n=len(losses), end=end)
            scheduler.step()
            assert step.grad_norm is not None
            assert job.rehearsing or sums["n"] == 12.0
            diary["last"] = f"{sums['loss'].hex()} {step.grad_norm.hex()}"
            diary["all"] = hashlib.sha256((diary["all"] + diary["last"]).encode()).hexdigest()
        if sums["end"] and not (step.discarded or job.rehearsing):
            break
    state = [*model.state_dict().values()]
    state += [v for p in optimizer.state.values() for _, v in sorted(p.items())]
    result = {"digest": digest(state), "diary": diary, "steps": step.index + 1}
    partial = folder / f".rank{job.rank}"
    partial.write_text(json.dumps({"result": result, "about": {"pid": os.getpid()}}))
    partial.rename(folder / f"rank{job.rank}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), "".join(sys.argv[3:]))
