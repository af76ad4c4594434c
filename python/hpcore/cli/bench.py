"""``hpcore bench``: measurements of one shape, each against a peer or a limit beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from hpcore.errors import HpcoreError

if TYPE_CHECKING:
    from hpcore.bench.result import Report

F = TypeVar("F", bound=Callable[..., Any])


def _shared(function: F) -> F:
    """The options that all benches have."""
    for option in (
        click.option("--quick", is_flag=True, help="A rough answer within half a minute."),
        click.option(
            "--json",
            "json_file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write one JSON object to this file.",
        ),
    ):
        function = option(function)
    return function


def _say(line: str) -> None:
    click.echo(line, err=True)


def _finish(run: Callable[[], Report], json_file: Path | None) -> None:
    """Runs, prints the table, writes the file; an error becomes one line and exit code 1."""
    try:
        report = run()
    except (HpcoreError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)
    console = Console()
    report.print(console if console.is_terminal else Console(width=120))
    if json_file is not None:
        report.write(json_file)


@click.group()
def bench() -> None:
    """Measure, each figure against a peer or a limit in the same run."""


@bench.command()
@_shared
@click.option("--state-mib", type=click.IntRange(16), default=512, show_default=True)
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="When and whom to kill.")
@click.option("--peers", is_flag=True, help="Also torchft, NVRx and torchrun (group `peers`).")
@click.option("--peers-python", default="", help="Python that has the peers [default: this one].")
def recovery(
    quick: bool,
    json_file: Path | None,
    state_mib: int,
    kills: int,
    seed: int,
    peers: bool,
    peers_python: str,
) -> None:
    """From the kill of a rank to the next committed step at full strength."""
    from hpcore.bench.peers import all_peers
    from hpcore.bench.recovery import RecoveryOptions, measure

    if quick:
        state_mib, kills = min(state_mib, 128), min(kills, 4)
    options = RecoveryOptions(
        state_mib=state_mib,
        kills=kills,
        seed=seed,
        peers=all_peers(1 if quick else 5) if peers else (),
        peers_python=peers_python,
        say=_say,
    )
    _finish(lambda: measure(options), json_file)


@bench.command()
@_shared
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
def overhead(quick: bool, json_file: Path | None, rounds: int) -> None:
    """Step time of the demo's model under hpcore, against DDP over Gloo under torchrun; what shadow
    copies and comparisons cost a step."""
    from hpcore.bench.overhead import OverheadOptions, measure
    from hpcore.bench.protection import ProtectionOptions

    options = OverheadOptions(
        rounds=1 if quick else rounds,
        steps=20 if quick else 60,
        say=_say,
        protection=ProtectionOptions(48 if quick else 256, 6 if quick else 12, _say),
    )
    _finish(lambda: measure(options), json_file)


@bench.command()
@_shared
@click.option("--ranks", type=click.IntRange(2), multiple=True, default=(2, 4), show_default=True)
@click.option("--op", "operations", multiple=True, help="Only these, e.g. --op all_reduce.")
@click.option("--no-oversubscribed", is_flag=True, help="Leave out the runs beside a busy loop.")
@click.option("--no-training", is_flag=True, help="Leave out the steps of DDP and FSDP2.")
@click.option("--plot", type=click.Path(dir_okay=False), help="A .svg, .png or .pdf (matplotlib).")
def collectives(
    quick: bool,
    json_file: Path | None,
    ranks: tuple[int, ...],
    operations: tuple[str, ...],
    no_oversubscribed: bool,
    no_training: bool,
    plot: str | None,
) -> None:
    """The hpcore backend's operations against Gloo's and memcpy, from Python, by size."""
    from hpcore.bench import plots, training
    from hpcore.bench.collectives import CollectivesOptions, measure
    from hpcore.bench.exercises import FACTORS

    unknown = set(operations) - set(FACTORS)
    if unknown:
        raise click.UsageError(f"--op {', '.join(unknown)}: known are {', '.join(FACTORS)}")
    options = CollectivesOptions(
        operations=operations or (("all_reduce", "all_gather") if quick else tuple(FACTORS)),
        dtypes=("float32",) if quick else ("float32", "bfloat16"),
        ranks=ranks[:1] if quick else ranks,
        oversubscribed=not (quick or no_oversubscribed),
        seconds_a_case=0.2 if quick else 0.4,
        say=_say,
    )

    def run() -> Report:
        if plot is not None:
            plots.check(plot)
        report = measure(options)
        if not (quick or no_training or operations):
            training.measure(report, ranks, 5, _say)
        if plot is not None:
            plots.plot_collectives(report, plot)
        return report

    _finish(run, json_file)


@bench.command()
@_shared
@click.option("--ranks", type=click.IntRange(2), multiple=True, default=(2, 4, 8, 16, 32))
def store(quick: bool, json_file: Path | None, ranks: tuple[int, ...]) -> None:
    """The store's methods and the start of a group, against TCPStore (and Gloo)."""
    from hpcore.bench.store import StoreOptions, measure

    options = StoreOptions(ranks=ranks, say=_say)
    if quick:
        options = StoreOptions(calls=500, waits=50, inits=2, ranks=ranks[:3], say=_say)
    _finish(lambda: measure(options), json_file)


@bench.command()
@_shared
@click.option("--mib", type=click.IntRange(64), default=1024, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--peers", is_flag=True, help="Also torchft's transports (group `peers`).")
@click.option("--peers-python", default="", help="Python that has the peers [default: this one].")
@click.option("--plot", type=click.Path(dir_okay=False), help="A .svg, .png or .pdf (matplotlib).")
def stream(
    quick: bool,
    json_file: Path | None,
    mib: int,
    rounds: int,
    peers: bool,
    peers_python: str,
    plot: str | None,
) -> None:
    """State from healthy peers' memory, against memcpy and the bare system call."""
    from hpcore.bench import plots
    from hpcore.bench.stream import StreamOptions, measure

    if quick:
        mib, rounds = min(mib, 256), min(rounds, 3)

    def run() -> Report:
        if plot is not None:
            plots.check(plot)
        report = measure(
            StreamOptions(mib=mib, rounds=rounds, peers=peers, peers_python=peers_python, say=_say)
        )
        if plot is not None:
            plots.plot_stream(report, plot)
        return report

    _finish(run, json_file)


@bench.command()
@_shared
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--peers", is_flag=True, help="Also other loaders, whichever are installed.")
@click.option("--peers-python", default="", help="Python that has the peers [default: this one].")
def dataset(
    quick: bool, json_file: Path | None, rounds: int, peers: bool, peers_python: str
) -> None:
    """Shuffled batches of tokens, and the first one after a restart, against memcpy and peers."""
    from hpcore.bench.dataset import DatasetOptions, measure

    options = DatasetOptions(
        mib=96 if quick else 191,
        rounds=2 if quick else rounds,
        resumes=50 if quick else 200,
        peers=peers,
        peers_python=peers_python,
        say=_say,
    )
    _finish(lambda: measure(options), json_file)
