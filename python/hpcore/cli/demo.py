"""``hpcore demo``: watch a training job lose ranks and go on as if nothing had happened."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from hpcore.errors import HpcoreError


@click.command()
@click.option("--quick", is_flag=True, help="About 25 s instead of two minutes.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for report.html, report.json, text and logs [default: runs/demo-DATE].",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write report.json to this file.",
)
@click.option("--plain", is_flag=True, help="Plain lines, also on a terminal.")
def demo(quick: bool, out: Path | None, json_file: Path | None, plain: bool) -> None:
    """Train a transformer on Python's own sources, twice: left alone, and through faults.

    Four workers and a standby on this machine. The second run loses ranks to SIGKILL, an exception,
    a hang, two kills at once, and is shrunk and grown; its losses must be those of the first run,
    to the bit. Ends with 0 if they are.
    """
    from hpcore.demo.display import print_outcome
    from hpcore.demo.plan import full_plan, quick_plan
    from hpcore.demo.runner import run_demo

    folder = out or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    console = Console(force_terminal=False) if plain else Console()
    if not console.is_terminal:
        console = Console(width=120, force_terminal=False)
    try:
        outcome = run_demo(quick_plan() if quick else full_plan(), folder, console)
    except (HpcoreError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(f"hpcore demo: interrupted; logs are in {folder}", err=True)
        sys.exit(130)
    print_outcome(console, outcome)
    if json_file is not None:
        shutil.copyfile(folder / "report.json", json_file)
    console.print(f"report: {(folder / 'report.html').resolve()}", soft_wrap=True, highlight=False)
    sys.exit(0 if outcome["ok"] else 1)
