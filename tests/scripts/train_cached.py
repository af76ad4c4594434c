"""The script under test: preprocessing that is counted and kept by the node.

usage: train_cached.py FOLDER STEPS DATASET. Appends a line to `calls` for each time the function
ran, and writes `rank<r>.json` with the losses of all steps.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

import hpcore
from hpcore.dataset import MappedDataset


def main(folder: Path, total: int, path: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def costly(sample: torch.Tensor, position: int) -> torch.Tensor:
        with (folder / "calls").open("a") as calls:
            calls.write(f"{position}\n")
        return sample[:16].float() / 256

    data = MappedDataset(path, 16).map(costly, cache="node", key="position")
    job = hpcore.Job(
        global_batch=8,
        micro_batch=2,
        seed=3,
        ledger=True,
        checkpoint_dir=os.environ.get("TEST_CHECKPOINT_DIR", ""),
        checkpoint_every=2 if "TEST_CHECKPOINT_DIR" in os.environ else 0,
    )
    model = job.replicate(torch.nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses: list[float] = []
    job.track(model=model, optimizer=optimizer, losses=losses)
    for step in job.steps(data, total=total):
        with step:
            loss_sum = 0.0
            for batch in step.micro_batches():
                loss = model(batch.data).square().mean() * batch.weight
                loss.backward()
                loss_sum += loss.item()
            losses.append(step.commit(optimizer, loss=loss_sum)["loss"])
    partial = folder / f".rank{job.rank}"
    partial.write_text(json.dumps(losses))
    partial.rename(folder / f"rank{job.rank}.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
