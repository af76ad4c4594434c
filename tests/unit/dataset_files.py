"""Datasets that the tests of the dataset room build."""

from __future__ import annotations

from pathlib import Path

import torch

from hpcore import dataset


def token_file(
    folder: Path, tokens: int = 20_000, documents: int = 1, name: str = "tokens.hpd"
) -> tuple[Path, torch.Tensor]:
    """(a file of uint16 tokens that are bytes in a pattern, its tokens as int64)."""
    content = bytes((7 * i + i // 251) % 256 for i in range(tokens))
    each = -(-tokens // documents)
    sources = []
    for number in range(documents):
        source = folder / f"{name}-{number:04}.txt"
        source.write_bytes(content[number * each : (number + 1) * each])
        sources.append(source)
    out = folder / name
    dataset.build_text(sources, out, dtype="uint16")
    return out, torch.tensor(list(content))
