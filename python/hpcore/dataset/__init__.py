"""Datasets in one mapped file: built once, read by every process, order not stored.

The sample at position ``k`` of an epoch is ``Permutation(len(dataset), seed, epoch)(k)``: a pure
function, so a job that goes on after a fault, or with another number of ranks, needs no saved data
position.
"""

from __future__ import annotations

from hpcore.dataset.builder import build_text, text_files
from hpcore.dataset.info import DatasetInfo, FieldInfo, info, verify
from hpcore.dataset.reader import MappedDataset, Permutation

__all__ = [
    "DatasetInfo",
    "FieldInfo",
    "MappedDataset",
    "Permutation",
    "build_text",
    "info",
    "text_files",
    "verify",
]
