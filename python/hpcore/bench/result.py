"""The frame of every `hpcore bench`: samples in, one table and one JSON object out, the same shape
for all.

    {"bench": "recovery", "commit": "...", "hardware": {"cpu": "...", "cores": 2, "memory_gib": 24},
     "results": [{"case": "kill/512MiB", "metric": "kill_to_commit", "unit": "s", "n": 20, "p50":
     0.11, "p99": 0.19,
                  "against": [{"name": "memcpy", "p50": 0.05, "ratio": 0.45}]}]}

`ratio` says how many times better hpcore is than what it is held against: above 1 is better. Not
thread-safe.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hpcore.errors import InvalidArgument

HIGHER_IS_BETTER = frozenset({"bandwidth", "tokens_per_s"})
"""Metrics of which more is better; of all others less is."""


def percentile(samples: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100), linear between the two nearest samples.

    Raises InvalidArgument if there are no samples.
    """
    if not samples:
        raise InvalidArgument(f"percentile {q} of no samples: the case measured nothing")
    ordered = sorted(samples)
    at = (len(ordered) - 1) * q / 100
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


@dataclass(frozen=True)
class Against:
    """What a result is held against; `ratio` above 1: hpcore is better."""

    name: str
    p50: float
    ratio: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        fields: dict[str, Any] = {"name": self.name, "p50": self.p50, "ratio": self.ratio}
        return {**fields, "note": self.note} if self.note else fields


@dataclass
class Result:
    """One metric of one case, from its samples (in `unit`)."""

    case: str
    metric: str
    unit: str
    samples: Sequence[float]
    against: list[Against] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """Median."""
        return percentile(self.samples, 50)

    @property
    def p99(self) -> float:
        """99th percentile; the 1st where more is better: always the bad end."""
        return percentile(self.samples, 1 if self.metric in HIGHER_IS_BETTER else 99)

    def hold_against(self, name: str, samples: Sequence[float], note: str = "") -> None:
        """Adds a contender or a limit, measured beside this result and in the same unit."""
        other, own = percentile(samples, 50), self.p50
        better, worse = (own, other) if self.metric in HIGHER_IS_BETTER else (other, own)
        ratio = better / worse if worse else math.inf
        self.against.append(Against(name, other, ratio, note))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as documented at the top."""
        return {
            **{"case": self.case, "metric": self.metric, "unit": self.unit},
            **{"n": len(self.samples), "p50": self.p50, "p99": self.p99},
            "against": [other.to_dict() for other in self.against],
        }


def commit() -> str:
    """The commit that the package was run from, "+" if its files differ; the version where there is
    no checkout.
    """
    folder = Path(__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    try:
        name = _output([*git, "rev-parse", "--short=12", "HEAD"])
        changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
        return name + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        from importlib import metadata

        try:
            return metadata.version("hpcore")
        except metadata.PackageNotFoundError:
            return "unknown"


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


@dataclass
class Report:
    """All results of one bench. Make it before anything is measured: it notes the commit then, as
    the checkout may move while a bench runs.
    """

    bench: str
    commit: str = field(default_factory=commit)
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, result: Result) -> Result:
        """Appends a result and returns it."""
        self.results.append(result)
        return result

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: results with the hardware and the commit they belong to."""
        return {
            **{"bench": self.bench, "commit": self.commit, "hardware": hardware()},
            "results": [result.to_dict() for result in self.results],
            **({"notes": self.notes} if self.notes else {}),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON object to a file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    def print(self, console: Console | None = None) -> None:
        """Prints the table."""
        console = console or Console()
        about = hardware()
        console.print(
            f"[bold]{self.bench}[/] on {about['cpu']}, {about['cores']} cores, "
            f"{about['memory_gib']} GiB, commit {self.commit}"
        )
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("case", "metric"):
            table.add_column(name)
        for name in ("n", "p50", "p99"):
            table.add_column(name, justify="right")
        table.add_column("held against (ratio above 1: hpcore is better)", overflow="fold")
        for result in self.results:
            against = ", ".join(
                f"{a.name} {quantity(a.p50, result.unit)} ({a.ratio:.3g}x)" for a in result.against
            )
            table.add_row(
                *(result.case, result.metric, str(len(result.samples))),
                *(quantity(result.p50, result.unit), quantity(result.p99, result.unit), against),
            )
        console.print(table)
        for note in self.notes:
            console.print(f"note: {note}")


_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "B/s": ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")),
    "1/s": ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
}


def quantity(value: float, unit: str) -> str:
    """A value with three digits and a unit that suits its size, e.g. 0.0123 s -> 12.3 ms."""
    if value != value or not math.isfinite(value):
        return "-"
    scales = _SCALES.get(unit, ((1.0, unit),))
    scale, name = next((s for s in scales if abs(value) >= s[0]), scales[-1])
    number = value / scale
    digits = max(0, 2 - math.floor(math.log10(abs(number)))) if number else 0
    return f"{number:.{min(digits, 3)}f} {name}"


def hardware() -> dict[str, Any]:
    """CPU, cores that this process may use, memory in GiB."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return {"cpu": cpu, "cores": cores, "memory_gib": round(memory)}
