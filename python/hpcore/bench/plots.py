"""Plots of a bench's results by matplotlib, which is asked for only then (`hpcore[plot]`).

One thread.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from hpcore.bench.result import Report, Result
from hpcore.errors import InvalidArgument, NotFound

FORMATS = (".svg", ".png", ".pdf")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_COLOURS = {"hpcore": "#0b6e4f", "gloo": "#c1666b", "memcpy": "#8d99ae"}


def check(path: str | os.PathLike[str]) -> None:
    """Before anything is measured: raises if the plot could not be written in the end."""
    if Path(path).suffix not in FORMATS:
        raise InvalidArgument(f"--plot {path}: the name must end in one of {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise NotFound("--plot needs matplotlib: pip install 'hpcore[plot]'") from error


def plot_collectives(report: Report, path: str | os.PathLike[str]) -> None:
    """Latency and bandwidth over size, one row of panels for each operation, dtype and number of
    ranks. Writes the file; its ending chooses the format.
    """
    check(path)
    from matplotlib.figure import Figure

    rows: dict[tuple[str, str, str], dict[str, list[Result]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for result in report.results:
        if result.metric not in ("latency", "bandwidth"):
            continue
        operation, dtype, _, ranks = result.case.split("/")
        rows[operation, dtype, ranks][result.metric].append(result)
    figure = Figure(figsize=(11, 2.6 * max(1, len(rows))), layout="constrained")
    panels = figure.subplots(max(1, len(rows)), 2, squeeze=False)
    for (key, metrics), (left, right) in zip(rows.items(), panels, strict=True):
        title = f"{key[0]}, {key[1]}, {key[2]}"
        _panel(left, metrics["latency"], 1e6, "latency (us)", title)
        _panel(right, metrics["bandwidth"], 1e-9, "bus bandwidth (GB/s)", title)
        left.set_yscale("log")
    figure.suptitle(f"hpcore bench collectives, commit {report.commit} (p50; band: to p99)")
    figure.savefig(path)


def plot_stream(report: Report, path: str | os.PathLike[str]) -> None:
    """A bar for each case's bandwidth, beside what it is held against. Writes the file."""
    check(path)
    from matplotlib.figure import Figure

    results = [result for result in report.results if result.metric == "bandwidth"]
    figure = Figure(figsize=(9, 1 + 0.35 * sum(1 + len(r.against) for r in results)))
    axes = figure.subplots()
    labels: list[str] = []
    for result in results:
        bars = [("hpcore", result.p50)] + [(other.name, other.p50) for other in result.against]
        for name, value in bars:
            axes.barh(len(labels), value / 1e9, color=_COLOURS.get(name, "#8d99ae"))
            labels.append(f"{result.case}: {name}" if name == "hpcore" else name)
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="GB/s (p50)", title=f"hpcore bench stream, commit {report.commit}")
    figure.tight_layout()
    figure.savefig(path)


def _panel(axes: Any, results: list[Result], scale: float, unit: str, title: str) -> None:
    axes.set(xscale="log", xlabel="size (bytes)", ylabel=unit, title=title)
    axes.grid(alpha=0.3)
    if not results:
        return
    sizes = [_size(result.case.split("/")[2]) for result in results]
    own = [result.p50 * scale for result in results]
    axes.plot(sizes, own, "o-", color=_COLOURS["hpcore"], label="hpcore")
    axes.fill_between(
        sizes, own, [r.p99 * scale for r in results], color=_COLOURS["hpcore"], alpha=0.15
    )
    for name in dict.fromkeys(other.name for r in results for other in r.against):
        points = [
            (size, other.p50 * scale)
            for size, r in zip(sizes, results, strict=True)
            for other in r.against
            if other.name == name
        ]
        axes.plot(*zip(*points, strict=True), "o--", color=_COLOURS.get(name), label=name)
    axes.legend(fontsize="small")


def _size(name: str) -> int:
    unit = name.lstrip("0123456789")
    return int(name.removesuffix(unit)) * _UNITS[unit]
