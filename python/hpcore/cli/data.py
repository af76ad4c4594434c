"""``hpcore data``: build, describe, check, show and join dataset files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from hpcore import dataset
from hpcore.dataset.builder import FORMATS, guess_format
from hpcore.dataset.construction import Progress
from hpcore.errors import HpcoreError


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (HpcoreError, OSError) as error:
        for line in [f"hpcore data: {error}", *getattr(error, "__notes__", [])]:
            click.echo(line, err=True)
        sys.exit(1)


def _print(about: dataset.DatasetInfo, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(about)))
        return
    for name in ("path", "uuid", "version", "file_bytes", "blocks", "block_bytes", "records"):
        _line(name, getattr(about, name))
    for name, value in about.metadata.items():
        _line(name, value)
    for field in about.fields:
        _line("field", field.name)
        for name, value in dataclasses.asdict(field).items():
            if name != "name":
                _line(f"  {name}", value)


def _line(name: str, value: object) -> None:
    click.echo(f"{name:14}{value:,}" if isinstance(value, int) else f"{name:14}{value}")


@contextlib.contextmanager
def _progress(wanted: bool) -> Iterator[Progress | None]:
    """A bar on stderr, if that is a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("build", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _size(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Any:
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise click.BadParameter(f"{text!r} is not HEIGHTxWIDTH")
    return int(height), int(width)


def _separator(_ctx: click.Context, _option: click.Parameter, text: str) -> int | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    if not text.isdigit():
        raise click.BadParameter(f"{text!r} is not a token's number, auto or none")
    return int(text)


def _build_options(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option(
            "--processes",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="That tokenise or decode; the file is the same for any number.",
        ),
        click.option("--fresh", is_flag=True, help="Do not go on where a killed build was."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.group()
def data() -> None:
    """Build, describe, check, show and join .hpd dataset files."""


@data.command()
@click.argument("out", type=click.Path())
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Default: by the suffixes.")
@click.option(
    "--tokenizer",
    default="bytes",
    show_default=True,
    help="bytes, tiktoken:NAME, tiktoken:NAME=RANKS, tokenizers:FILE.",
)
@click.option("--member", default="text", show_default=True, help="Of JSON Lines, or the column.")
@click.option("--dtype", type=click.Choice(["uint8", "uint16", "uint32"]), help="Default: fits.")
@click.option(
    "--separator",
    default="auto",
    show_default=True,
    callback=_separator,
    help="Token behind each document: a number, auto (the tokenizer's own, if any), none. Of "
    "nanogpt files: the one that ends a document in them.",
)
@click.option("--vocabulary", type=click.IntRange(1), help="Default: the tokenizer's.")
@click.option("--pattern", default="*", show_default=True, help="Which files of a folder.")
@click.option("--max-bytes", type=click.IntRange(1), help="Stop after this many bytes of text.")
@click.option("--size", callback=_size, help="Of images: HEIGHTxWIDTH. Default: their own.")
@click.option("--mode", type=click.Choice(["RGB", "L"]), default="RGB", help="Of images.")
@_build_options
def build(
    out: str,
    paths: tuple[str, ...],
    kind: str | None,
    processes: int,
    fresh: bool,
    as_json: bool,
    size: tuple[int, int] | None,
    mode: str,
    pattern: str,
    **how: Any,
) -> None:
    """Make OUT from the files and folders PATHS. Killed, the same command goes on where it was."""
    with _told(), _progress(not as_json) as progress:
        options = dataset.BuildOptions(processes=processes, progress=progress, resume=not fresh)
        kind = kind or guess_format(dataset.text_files(paths, pattern))
        if kind == "images":
            about = dataset.build_images(
                paths, out, size=size, mode=mode, pattern=pattern, options=options
            )
        else:
            about = dataset.build(paths, out, format=kind, pattern=pattern, options=options, **how)
    _print(about, as_json)


@data.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(file: str, as_json: bool) -> None:
    """Say what FILE holds."""
    with _told():
        about = dataset.info(file)
    _print(about, as_json)


@data.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(file: str, as_json: bool) -> None:
    """Check every block of FILE against its checksum."""
    with _told():
        about = dataset.verify(file)
    _print(about, as_json)


@data.command()
@click.argument("file", type=click.Path())
@click.option("--count", type=click.IntRange(1), default=3, show_default=True, help="Records.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="The first.")
@click.option("--width", type=click.IntRange(1), default=64, show_default=True, help="Items each.")
@click.option("--tokenizer", help="To show tokens as text. Default: as the file says, if it can.")
def head(file: str, count: int, first: int, width: int, tokenizer: str | None) -> None:
    """Show the first records (or documents) of FILE."""
    from hpcore.dataset.show import shown

    with _told():
        for line in shown(Path(file), first, count, width, tokenizer):
            click.echo(line)


@data.command()
@click.argument("out", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path())
@_build_options
def merge(out: str, files: tuple[str, ...], processes: int, fresh: bool, as_json: bool) -> None:
    """Make OUT of FILES, datasets with the same fields, one behind the other."""
    with _told(), _progress(not as_json) as progress:
        options = dataset.BuildOptions(processes=processes, progress=progress, resume=not fresh)
        about = dataset.merge(files, out, options=options)
    _print(about, as_json)
