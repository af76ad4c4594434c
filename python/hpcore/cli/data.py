"""``hpcore data``: build, describe and check dataset files."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from hpcore import dataset
from hpcore.errors import HpcoreError


def _fail(error: Exception) -> None:
    click.echo(f"hpcore data: {error}", err=True)
    sys.exit(1)


def _print(about: dataset.DatasetInfo, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(about)))
        return
    for name in ("path", "uuid", "version", "file_bytes", "blocks", "block_bytes", "records"):
        value = getattr(about, name)
        click.echo(f"{name:12} {value:,}" if isinstance(value, int) else f"{name:12} {value}")
    for field in about.fields:
        click.echo(f"field        {field.name}")
        for name, value in dataclasses.asdict(field).items():
            if name != "name":
                click.echo(
                    f"  {name:11}{value:,}" if isinstance(value, int) else f"  {name:11}{value}"
                )


@click.group()
def data() -> None:
    """Build, describe and check .hpd dataset files."""


@data.command()
@click.argument("out", type=click.Path())
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--dtype", type=click.Choice(["uint8", "uint16"]), default="uint8", show_default=True)
@click.option("--separator", type=int, help="Token put behind each document (256 needs uint16).")
@click.option("--pattern", default="*", show_default=True, help="Which files of a folder.")
@click.option("--max-bytes", type=int, help="Stop after this many bytes of text.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def build(
    out: str,
    paths: tuple[str, ...],
    dtype: str,
    separator: int | None,
    pattern: str,
    max_bytes: int | None,
    as_json: bool,
) -> None:
    """Make OUT from the files and folders PATHS; bytes are the tokens."""
    try:
        about = dataset.build_text(
            paths, out, dtype=dtype, separator=separator, pattern=pattern, max_bytes=max_bytes
        )
    except (HpcoreError, OSError) as error:
        _fail(error)
    else:
        _print(about, as_json)


@data.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def info(file: str, as_json: bool) -> None:
    """Say what FILE holds."""
    try:
        about = dataset.info(file)
    except (HpcoreError, OSError) as error:
        _fail(error)
    else:
        _print(about, as_json)


@data.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(file: str, as_json: bool) -> None:
    """Check every block of FILE against its checksum."""
    try:
        about = dataset.verify(file)
    except (HpcoreError, OSError) as error:
        _fail(error)
    else:
        _print(about, as_json)
