"""What tests of datasets read back from a .hpd file."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hpcore import _core, dataset


def stream_of(path: Path) -> list[list[int]]:
    """The documents of the first field, read back and checked."""
    about = dataset.verify(path)
    field = about.fields[0]
    file = _core.DatasetFile(str(path), True)
    tokens = np.frombuffer(file.read(0, 0, field.data_bytes), field.dtype)
    starts = np.frombuffer(file.starts(0, 0, field.documents), np.uint64)
    return [tokens[int(a) : int(b)].tolist() for a, b in pairwise(starts)]


def values_of(path: Path, name: str) -> list[Any]:
    """The rows of a fixed or varying field."""
    about = dataset.verify(path)
    file = _core.DatasetFile(str(path), True)
    number = file.find_field(name)
    field = about.fields[number]
    dtype = "uint16" if field.dtype == "bfloat16" else field.dtype
    data = np.frombuffer(file.read(number, 0, field.data_bytes), dtype)
    if field.kind == "fixed":
        return list(data.reshape(-1, *field.shape))
    starts = np.frombuffer(file.starts(number, 0, field.rows), np.uint64) // data.itemsize
    return [data[int(a) : int(b)].reshape(-1, *field.shape) for a, b in pairwise(starts)]
