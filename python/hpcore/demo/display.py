"""What the demo shows while it runs: a live panel on a terminal, plain lines elsewhere.

Called from the event follower's thread and from the main thread, one at a time for each run.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hpcore.demo.plan import Plan
from hpcore.demo.recoveries import recoveries_of
from hpcore.demo.run_record import Event, RunRecord

_PLAIN_EVERY = 20
_LINES = 14


class Display:
    """Progress of both runs and a line for each thing that happens."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._titles = {(f.point, f.action, f.rank): f.title for f in plan.faults}
        self._lines: list[str] = []
        self._progress = Progress(
            TextColumn("{task.description:12}"),
            BarColumn(bar_width=36),
            TextColumn("{task.completed:>4.0f}/{task.total:.0f} steps  {task.fields[state]}"),
            TimeElapsedColumn(),
        )
        self._tasks = {
            name: self._progress.add_task(name, total=plan.steps, start=False, state="")
            for name in ("undisturbed", "disturbed")
        }
        self._live: Live | None = None
        self._told = 0
        if console.is_terminal:
            self._live = Live(self._render(), console=console, refresh_per_second=8)

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.update(self._render())
            self._live.__exit__(kind, error, trace)

    def begin(self, run: str) -> None:
        """A run begins."""
        self._told = 0
        self._progress.start_task(self._tasks[run])
        self.say(f"{run} run: {self._plan.nproc} ranks, {self._plan.standbys} standby")

    def say(self, line: str) -> None:
        """One line of what happens."""
        self._lines = [*self._lines, line][-_LINES:]
        if self._live is None:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            self._live.update(self._render())

    def event(self, run: str, event: Event, record: RunRecord) -> None:
        """An event of the run; `record` has it already."""
        kind = event["event"]
        if kind == "commit" and event["rank"] == 0:
            self._commit(run, event, record)
        elif kind == "fault_injected":
            key = (event["point"], event["action"], event["rank"])
            title = self._titles.get(key, event["action"])
            self.say(f"  step {event['step']:3}  {title} (rank {event['rank']})")
        elif kind == "resize":
            self.say(f"  resize to {event['to']} ranks")
        elif kind == "stop" and event.get("code"):
            self.say(f"  stopped: {event.get('reason', '')}")

    def _commit(self, run: str, event: Event, record: RunRecord) -> None:
        commits = record.ordered()
        done = len(commits)
        rate = ""
        if done > 1:
            took = (commits[-1].ns - commits[-2].ns) / 1e9
            rate = f"{self._plan.tokens_per_step / took:9,.0f} tokens/s" if took > 0 else ""
        last = commits[-1]
        state = f"loss {last.loss:.4f}  {last.world_size} ranks  {rate}"
        self._progress.update(self._tasks[run], completed=done, state=state)
        if event.get("first") and record.of_kind("fault_injected"):
            self._tell_recoveries(record)
        if self._live is not None:
            self._live.update(self._render())
        elif done % _PLAIN_EVERY == 0 or done == self._plan.steps:
            self.say(f"  step {last.step:3}  {state}")

    def _tell_recoveries(self, record: RunRecord) -> None:
        found = recoveries_of(record, self._titles)
        for recovery in found[self._told :]:
            self._told += 1
            parts = "  ".join(
                f"{name.replace('_', ' ')} {ms:.1f}" for name, ms in recovery.phases_ms.items()
            )
            what = "interrupted after" if recovery.interrupted else "back after"
            self.say(
                f"            fault {recovery.number} {what} {recovery.total_ms:.1f} ms: {parts}"
            )

    def _render(self) -> RenderableType:
        lines = Text("\n".join(self._lines) or " ", no_wrap=True, overflow="ellipsis")
        return Panel(Group(self._progress, Text(""), lines), title="hpcore demo", padding=(1, 2))


def print_outcome(console: Console, outcome: dict[str, Any]) -> None:
    """The end: recoveries, checks, the verdict."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("fault", "rank", "step"):
        table.add_column(name, justify="left" if name == "fault" else "right", no_wrap=True)
    order = ("detect", "replace", "decide", "notify", "reform", "heal", "first_step")
    names = tuple(n for n in order if any(n in r["phases_ms"] for r in outcome["recoveries"]))
    for name in (*names, "all"):
        table.add_column(name.replace("_", " "), justify="right")
    for r in outcome["recoveries"]:
        phases = [f"{r['phases_ms'][n]:.1f}" if n in r["phases_ms"] else "" for n in names]
        total = f"{r['total_ms']:.1f}" + ("*" if r["interrupted"] else "")
        table.add_row(r["title"], str(r["rank"]), str(r["step"]), *phases, total)
    console.print("\n[bold]Recoveries[/] (ms, from the fault to the next committed step)")
    console.print(table)
    if any(r["interrupted"] for r in outcome["recoveries"]):
        console.print("* until the next fault came in between")
    console.print("\n[bold]Checks[/]")
    for check in outcome["checks"]:
        mark = "[green]ok  [/]" if check["holds"] else "[bold red]FAIL[/]"
        console.print(f"{mark} {check['name']}: {check['found']}", highlight=False, soft_wrap=True)
    console.print(
        "\n[bold green]The disturbed run is the undisturbed run, to the bit.[/]"
        if outcome["ok"]
        else "\n[bold red]Something is not equal: see the checks above.[/]"
    )
