"""Datasets in one mapped file: built once, read by every process, order not stored.

The sample at position ``k`` of an epoch is ``Permutation(len(dataset), seed, epoch)(k)``: a pure
function, so a job that goes on after a fault, or with another number of ranks, needs no saved data
position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcore.dataset.builder import build, build_images, build_records, build_text
from hpcore.dataset.construction import BuildOptions
from hpcore.dataset.cursor import Cursor
from hpcore.dataset.info import DatasetInfo, FieldInfo, info, verify
from hpcore.dataset.mapped_records import MappedRecords
from hpcore.dataset.merge import merge
from hpcore.dataset.mixture import Mixture
from hpcore.dataset.pieces import Field
from hpcore.dataset.reader import MappedDataset, Permutation
from hpcore.dataset.samples import Samples
from hpcore.dataset.scrub import Scrub
from hpcore.dataset.sources import text_files

if TYPE_CHECKING:
    from hpcore.dataset.loaders import BatchLoader, StreamDataset

__all__ = [
    "BatchLoader",
    "BuildOptions",
    "Cursor",
    "DatasetInfo",
    "Field",
    "FieldInfo",
    "MappedDataset",
    "MappedRecords",
    "Mixture",
    "Permutation",
    "Samples",
    "Scrub",
    "StreamDataset",
    "build",
    "build_images",
    "build_records",
    "build_text",
    "info",
    "merge",
    "text_files",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in {"BatchLoader", "StreamDataset"}:  # they need torch
        from hpcore.dataset import loaders

        return getattr(loaders, name)
    raise AttributeError(f"module 'hpcore.dataset' has no attribute {name!r}")
