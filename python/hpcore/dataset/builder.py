"""Builds ``.hpd`` files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hpcore import _core
from hpcore.dataset.info import DatasetInfo, describe
from hpcore.errors import InvalidArgument, NotFound


def text_files(paths: Iterable[str | os.PathLike[str]], pattern: str = "*") -> list[Path]:
    """The files meant by ``paths``, in a fixed order: folders are searched and sorted.

    Args:
        paths: files and folders.
        pattern: which files of a folder, as in ``Path.rglob``.

    Raises NotFound for a path that is not there.
    """
    found: list[Path] = []
    for entry in paths:
        path = Path(entry)
        if path.is_dir():
            found.extend(sorted(file for file in path.rglob(pattern) if file.is_file()))
        elif path.is_file():
            found.append(path)
        else:
            raise NotFound(f"there is no file or folder {path}")
    return found


def build_text(
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    dtype: str = "uint8",
    separator: int | None = None,
    vocabulary: int | None = None,
    pattern: str = "*",
    max_bytes: int | None = None,
) -> DatasetInfo:
    """Builds a dataset from files: bytes are tokens, a file is a document, empty ones are left out.

    Args:
        paths: files and folders (searched for ``pattern``, in sorted order).
        out: the ``.hpd`` file; it appears when it is whole, an old one stays until then.
        dtype: ``uint8`` or ``uint16``.
        separator: token appended to each document (256 needs ``uint16``); None: none.
        vocabulary: number of tokens; None: 256, or 257 with separator 256.
        pattern: which files of a folder.
        max_bytes: stop after this many bytes of text; the last document is cut.

    Raises InvalidArgument, NotFound, OSError. Two builds of the same input are equal to the byte.
    """
    if dtype not in ("uint8", "uint16"):
        raise InvalidArgument(f"dtype {dtype!r} is not one of uint8, uint16")
    last_token = -1 if separator is None else separator
    if vocabulary is None:
        vocabulary = max(256, last_token + 1)
    limit = 256 if dtype == "uint8" else 65536
    if not 256 <= vocabulary <= limit or last_token >= vocabulary:
        raise InvalidArgument(
            f"vocabulary {vocabulary} with separator {last_token}: bytes need 256 tokens, {dtype} "
            f"can have {limit}; choose uint16 for a separator of its own"
        )
    files = text_files(paths, pattern)
    target = os.fspath(out)
    field = {
        "name": "tokens",
        "kind": "tokens",
        "dtype": dtype,
        "shape": (),
        "vocabulary": vocabulary,
        "separator": separator,
    }
    writer = _core.DatasetWriter(target, [field])
    try:
        if writer.resumed is not None:
            writer.restart()
        left = max_bytes
        for path in files:
            with path.open("rb") as stream:
                document = np.frombuffer(
                    stream.read() if left is None else stream.read(left), np.uint8
                )
            if document.size:
                tokens = document if dtype == "uint8" else document.astype(np.uint16)
                if separator is not None:
                    tokens = np.append(tokens, np.array([separator], dtype))
                writer.append(0, tokens)
                writer.end_rows(0, np.array([tokens.size], np.uint64))
            if left is not None:
                left -= document.size
                if left <= 0:
                    break
        return describe(target, writer.finish())
    except BaseException:
        writer.give_up()
        raise
