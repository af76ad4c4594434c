"""Builds ``.hpd`` files: from text, from other programs' tokens, from images, from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcore.dataset.construction import BuildOptions, construct
from hpcore.dataset.convert import TextConverter
from hpcore.dataset.imports import Megatron, NanoGpt, RawConverter
from hpcore.dataset.info import DatasetInfo
from hpcore.dataset.pieces import Field, Source, token_dtype
from hpcore.dataset.records import ImageConverter, Images, Records, image_fields, pass_on
from hpcore.dataset.sources import JsonLines, Tables, TextFiles, text_files
from hpcore.dataset.tokenizers import make_tokenizer
from hpcore.errors import InvalidArgument

Paths = Iterable[str | os.PathLike[str]]
_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".idx": "megatron",
    ".bin": "nanogpt",
    ".png": "images",
    ".jpg": "images",
    ".jpeg": "images",
}
FORMATS = ("text", "jsonl", "parquet", "arrow", "megatron", "nanogpt", "images")


def guess_format(files: Sequence[Path]) -> str:
    """What the files are by their suffixes; ``text`` for all others."""
    suffixes = {file.suffix.lower() for file in files}
    found = {_FORMATS.get(suffix, "text") for suffix in suffixes}
    if suffixes == {".bin", ".idx"}:
        return "megatron"
    if len(found) > 1:
        raise InvalidArgument(f"the files look like {', '.join(sorted(found))}: say the format")
    return found.pop() if found else "text"


def build(
    paths: Paths,
    out: str | os.PathLike[str],
    *,
    format: str | None = None,
    tokenizer: str = "bytes",
    member: str = "text",
    dtype: str | None = None,
    separator: int | str | None = "auto",
    vocabulary: int | None = None,
    pattern: str = "*",
    max_bytes: int | None = None,
    options: BuildOptions | None = None,
) -> DatasetInfo:
    """Builds a dataset of one stream of tokens, ``tokens``.

    Args:
        paths: files and folders (searched for ``pattern``, in sorted order).
        out: the ``.hpd`` file; it appears when it is whole, an old one stays until then.
        format: ``text`` (a file is a document), ``jsonl``, ``parquet``, ``arrow`` (a value of
            ``member`` is one), ``megatron`` (.bin/.idx) or ``nanogpt`` (.bin; also llm.c's); None:
            by the suffixes.
        tokenizer: ``bytes``, ``tiktoken:NAME``, ``tiktoken:NAME=FILE``, ``tokenizers:FILE``.
        dtype: ``uint8``, ``uint16`` or ``uint32``; None: the narrowest for the vocabulary.
        separator: token behind each document; ``auto``: the tokenizer's own, if it has one. For
            ``nanogpt``: the token that ends a document in the input; none is added.
        vocabulary: every token is below; None: the tokenizer's.
        max_bytes: of plain text: stop after so many; the last document is cut.

    Raises InvalidArgument, NotFound, Unsupported (a library is not installed), OSError. Equal input
    and options give equal bytes. Documents without a token are left out.
    """
    files = text_files(paths, pattern)
    kind = format or guess_format(files)
    if kind not in FORMATS or kind == "images":
        raise InvalidArgument(f"format {kind!r} is not one of {', '.join(FORMATS[:-1])}")
    if kind in ("megatron", "nanogpt"):
        end = separator if isinstance(separator, int) else None
        return _build_imported(files, out, kind, dtype, end, vocabulary, options)
    made = make_tokenizer(tokenizer)
    end = made.end_of_text if separator == "auto" else separator  # type: ignore[assignment]
    size = max(made.vocabulary, -1 if end is None else end + 1)
    field = _stream(size if vocabulary is None else vocabulary, dtype, end, made.vocabulary)
    source: Source = TextFiles(files, max_bytes)
    if kind != "text":
        source = JsonLines(files, member) if kind == "jsonl" else Tables(files, member)
    return construct(
        out,
        [field],
        source,
        (TextConverter, (tokenizer, field.dtype, field.vocabulary, end)),
        metadata={"tokenizer": made.name},
        identity=repr((made.fingerprint, field)),
        options=options or BuildOptions(),
    )


def _stream(vocabulary: int, dtype: str | None, separator: int | None, needed: int) -> Field:
    dtype = dtype or token_dtype(vocabulary)
    limit = {"uint8": 1 << 8, "uint16": 1 << 16, "uint32": 1 << 32}.get(dtype)
    if limit is None:
        raise InvalidArgument(f"dtype {dtype!r} is not one of uint8, uint16, uint32")
    last = -1 if separator is None else separator
    if not needed <= vocabulary <= limit or last >= vocabulary or last < -1:
        raise InvalidArgument(
            f"vocabulary {vocabulary} with separator {last}: the tokenizer has {needed} tokens, "
            f"{dtype} can have {limit}; choose a wider dtype for a separator of its own"
        )
    return Field(
        name="tokens", kind="tokens", dtype=dtype, vocabulary=vocabulary, separator=separator
    )


def _build_imported(
    files: list[Path],
    out: str | os.PathLike[str],
    kind: str,
    dtype: str | None,
    separator: int | None,
    vocabulary: int | None,
    options: BuildOptions | None,
) -> DatasetInfo:
    source: Megatron | NanoGpt
    if kind == "megatron":
        source = Megatron([file for file in files if file.suffix == ".idx"] or files)
    else:
        source = NanoGpt(files, separator)
    size = vocabulary or 1 << min(32, 8 * source.widest)
    field = _stream(size, dtype, separator, 1)
    return construct(
        out,
        [field],
        source,
        (RawConverter, (field.dtype, field.vocabulary)),
        metadata={},
        identity=repr((kind, field)),
        options=options or BuildOptions(),
    )


def build_text(
    paths: Paths,
    out: str | os.PathLike[str],
    *,
    dtype: str = "uint8",
    separator: int | None = None,
    vocabulary: int | None = None,
    pattern: str = "*",
    max_bytes: int | None = None,
) -> DatasetInfo:
    """Builds a dataset from files: bytes are tokens, a file is a document. See ``build``."""
    return build(
        paths,
        out,
        format="text",
        dtype=dtype,
        separator=separator,
        vocabulary=vocabulary,
        pattern=pattern,
        max_bytes=max_bytes,
    )


def build_records(
    records: Iterable[Mapping[str, Any]],
    out: str | os.PathLike[str],
    fields: Sequence[Field],
    *,
    key: str | None = None,
    options: BuildOptions | None = None,
) -> DatasetInfo:
    """Builds a dataset from an iterable of mappings, name of a field -> array, tensor, bytes, text.

    Args:
        records: values of ``fixed`` fields have their shape, of ``varying`` ones [n, *shape], of
            ``tokens`` [n] (a record is a document).
        fields: put the one with the most bytes first: the others' are written twice.
        key: names the content of ``records``: a killed build with the same key goes on by passing
            over the records that it has; None: it begins anew.

    Raises InvalidArgument that names record and field, OSError.
    """
    return construct(
        out,
        list(fields),
        Records(records, fields, key),
        (pass_on, ()),
        metadata={},
        identity=repr(("records", list(fields))),
        options=options or BuildOptions(),
    )


def build_images(
    paths: Paths,
    out: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    mode: str = "RGB",
    pattern: str = "*",
    options: BuildOptions | None = None,
) -> DatasetInfo:
    """Builds a dataset of decoded images: fields ``image`` (uint8, height, width, channels) and, if
    they lie in several folders, ``label``: the folder's number in sorted order (names: metadata).

    Args:
        size: height and width that all are brought to; None: ``image`` varies in length, and a
            field ``shape`` says height, width, channels.
        mode: ``RGB`` or ``L``.

    Raises InvalidArgument (an image cannot be decoded), NotFound, Unsupported (no Pillow), OSError.
    """
    files = text_files(paths, pattern)
    folders = sorted({file.parent.name for file in files})
    labels = folders if len(folders) > 1 else []
    fields = image_fields(size, mode, bool(labels))
    return construct(
        out,
        fields,
        Images(files, labels, (size, mode)),
        (ImageConverter, (size, mode, fields)),
        metadata={"labels": labels} if labels else {},
        identity=repr(("images", size, mode)),
        options=options or BuildOptions(),
    )
