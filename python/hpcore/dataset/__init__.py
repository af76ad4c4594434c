"""Datasets in one mapped file: built once, read by every process, order not stored.

The sample at position ``k`` of an epoch is ``Permutation(len(dataset), seed, epoch)(k)``: a pure
function, so a job that goes on after a fault, or with another number of ranks, needs no saved data
position.
"""

from __future__ import annotations

from hpcore.dataset.builder import build, build_images, build_records, build_text
from hpcore.dataset.construction import BuildOptions
from hpcore.dataset.info import DatasetInfo, FieldInfo, info, verify
from hpcore.dataset.merge import merge
from hpcore.dataset.pieces import Field
from hpcore.dataset.reader import MappedDataset, Permutation
from hpcore.dataset.scrub import Scrub
from hpcore.dataset.sources import text_files

__all__ = [
    "BuildOptions",
    "DatasetInfo",
    "Field",
    "FieldInfo",
    "MappedDataset",
    "Permutation",
    "Scrub",
    "build",
    "build_images",
    "build_records",
    "build_text",
    "info",
    "merge",
    "text_files",
    "verify",
]
