"""Datasets in other people's training loops: Lightning's Trainer and Transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dataset_files import token_file
from torch.utils.data import DataLoader

from hpcore.dataset import MappedDataset

STEPS, BATCH, SEED = 6, 4, 3


@pytest.fixture
def data(tmp_path: Path) -> MappedDataset:
    return MappedDataset(token_file(tmp_path, 2001)[0], 20)


def expected(data: MappedDataset, first: int, last: int) -> list[torch.Tensor]:
    return [data.read(SEED, step * BATCH, BATCH) for step in range(first, last)]


def same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def test_lightning_goes_on_where_its_checkpoint_was(data: MappedDataset, tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Model(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(21, 1)
            self.stream = data.iterable(BATCH, seed=SEED, rank=0, world_size=1)
            self.seen: list[torch.Tensor] = []

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            self.seen.append(batch.clone())
            return self.layer(batch.float() / 256).square().mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

        def train_dataloader(self) -> Any:
            return DataLoader(self.stream, batch_size=None)

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["stream"] = self.stream.state_dict()

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.stream.load_state_dict(checkpoint["stream"])

    def trainer(steps: int) -> Any:
        return lightning.Trainer(
            **{"max_steps": steps, "accelerator": "cpu", "logger": False, "devices": 1},
            **{"enable_checkpointing": False, "enable_progress_bar": False},
            **{"enable_model_summary": False, "default_root_dir": tmp_path},
        )

    first = trainer(STEPS)
    model = Model()
    first.fit(model)
    assert same(model.seen, expected(data, 0, STEPS))
    first.save_checkpoint(tmp_path / "saved.ckpt")
    again = Model()
    trainer(2 * STEPS).fit(again, ckpt_path=tmp_path / "saved.ckpt", weights_only=False)
    assert same(again.seen, expected(data, STEPS, 2 * STEPS))


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Samples as what a causal model's forward takes."""

    def __init__(self, data: MappedDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.data[index], "labels": self.data[index]}


@pytest.mark.parametrize("kind", ["map", "rows", "iterable"])
def test_transformers_trainer(data: MappedDataset, tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    seen: list[torch.Tensor] = []

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(21, 1)

        def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Any:
            seen.append(input_ids.clone())
            assert torch.equal(input_ids, labels)
            return {"loss": self.layer(input_ids.float() / 256).square().mean()}

    def collate(samples: Any) -> dict[str, torch.Tensor]:
        batch = torch.stack(list(samples))
        return {"input_ids": batch, "labels": batch}

    source: Any = data
    if kind == "rows":
        source = Rows(data)
    if kind == "iterable":  # single samples in hpcore's order
        source = data.iterable(1, seed=SEED, rank=0, world_size=1)
    options: dict[str, Any] = {"per_device_train_batch_size": BATCH, "max_steps": STEPS}
    options |= {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    options |= {"remove_unused_columns": False}
    flat = (lambda samples: collate([row[0] for row in samples])) if kind == "iterable" else collate
    trainer = transformers.Trainer(
        model=Tiny(),
        args=transformers.TrainingArguments(str(tmp_path / "out"), **options),
        train_dataset=source,
        **({} if kind == "rows" else {"data_collator": flat}),
    )
    trainer.train()
    assert len(seen) == STEPS and all(batch.shape == (BATCH, 21) for batch in seen)
    if kind == "iterable":
        assert same(seen, expected(data, 0, STEPS))
