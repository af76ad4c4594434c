"""report.html from the demo's outcome (the dict that report.json holds). Pure: same outcome, same
page.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import jinja2

from hpcore.report.charts import Chart, Line, Marker, stacked_bar

PHASE_TEXT = {
    "detect": "fault until the agent knows",
    "replace": "wait for a cold replacement",
    "decide": "until the new roster is published",
    "notify": "until the last rank has noticed",
    "reform": "until all have their communicator",
    "heal": "until newcomers have their state",
    "first_step": "until the first step is committed",
}


def write_report(outcome: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the page to a file: one file, nothing is loaded from anywhere."""
    Path(path).write_text(render(outcome), encoding="utf-8")


def render(outcome: dict[str, Any]) -> str:
    """The page as text."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    page.filters["ms"] = milliseconds
    used = {"decide"}.union(*(r["phases_ms"] for r in outcome["recoveries"]))
    return page.get_template("page.html").render(
        **outcome,
        phases=[(n, t) for n, t in PHASE_TEXT.items() if n in used],
        cards=cards(outcome),
        timeline=_safe(timeline(outcome)),
        world=_safe(world_chart(outcome)),
        losses=_safe(loss_chart(outcome)),
        rows=recovery_rows(outcome),
        lanes=process_lanes(outcome),
    )


def _safe(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)


def milliseconds(value: float | None) -> str:
    """A time in ms, two or three digits: 0.31, 4.2, 87, 1,240."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def cards(outcome: dict[str, Any]) -> list[dict[str, str]]:
    """The figures at the top: value, unit, what it is."""
    s, plan = outcome["summary"], outcome["plan"]
    kept = s["tokens_per_s_disturbed"] and s["tokens_per_s_undisturbed"]
    rate = (
        f"{s['tokens_per_s_disturbed'] / s['tokens_per_s_undisturbed'] * 100:.0f}" if kept else "-"
    )
    difference = s["largest_difference_before_resize"]
    return [
        _card(f"{s['faults']}", "faults", f"in {s['steps']} steps on {plan['nproc']} ranks"),
        _card(
            "-" if difference is None else f"{difference:g}",
            "",
            "largest difference of a loss to the undisturbed run, on all ranks",
        ),
        _card(
            milliseconds(s["recovery_ms_median"]),
            "ms",
            "from a fault until all ranks hold the state and step again, median of "
            f"{s['recovery_ms_median_of']} (a step takes {milliseconds(s['step_ms_median'])} ms)",
        ),
        _card(f"{s['survivors_kept']}/{s['survivors']}", "", "survivors are the process they were"),
        _card(rate, "%", "of the undisturbed throughput, all faults included"),
    ]


def _card(value: str, unit: str, text: str) -> dict[str, str]:
    return {"value": value, "unit": unit, "text": text}


def timeline(outcome: dict[str, Any]) -> str:
    """Tokens/s of the disturbed run over time, with its faults and recoveries."""
    steps = outcome["runs"]["disturbed"]["steps"]
    points = []
    for before, step in itertools.pairwise(steps):
        points += [(at, step["tokens_per_s"] or 0.0) for at in (before["at_s"], step["at_s"])]
    chart = Chart("seconds since start", "tokens/s", y_low=0.0, lines=[Line(points, "disturbed")])
    _frame(chart, steps)
    for r in outcome["recoveries"]:
        title = (
            f"{r['title']} (rank {r['rank']}, step {r['step']}): {milliseconds(r['total_ms'])} ms"
        )
        chart.markers.append(Marker(r["at_s"], str(r["number"]), title))
        end = r["at_s"] + r["total_ms"] / 1000
        chart.bands.append((r["at_s"], end, "outage", title))
    for z in outcome["resizes"]:
        title = f"resize to {z['to']} ranks: {milliseconds(z['asked_to_commit_ms'])} ms"
        chart.markers.append(Marker(z["at_s"], f"→{z['to']}", title, "resize"))
    return chart.svg("tokens per second over time, with faults")


def world_chart(outcome: dict[str, Any]) -> str:
    """Ranks of each committed step over time."""
    steps = outcome["runs"]["disturbed"]["steps"]
    points = [(s["at_s"], s["world_size"]) for s in steps]
    chart = Chart("seconds since start", "ranks", height=130, y_low=0.0, y_whole=True)
    chart.lines.append(Line(points, "world", stepped=True))
    chart.y_high = max((p[1] for p in points), default=1) + 0.5
    _frame(chart, steps)
    return chart.svg("number of ranks over time")


def _frame(chart: Chart, steps: list[dict[str, Any]]) -> None:
    """From the first commit to the last: the start of the processes is not shown."""
    if steps:
        chart.x_low, chart.x_high = steps[0]["at_s"], steps[-1]["at_s"]


def loss_chart(outcome: dict[str, Any]) -> str:
    """Losses of both runs over steps, one upon the other."""
    calm = [(s["step"], s["loss"]) for s in outcome["runs"]["undisturbed"]["steps"]]
    disturbed = [(s["step"], s["loss"]) for s in outcome["runs"]["disturbed"]["steps"]]
    chart = Chart("step", "loss", height=280)
    chart.lines += [Line(calm, "calm"), Line(disturbed, "disturbed")]
    for r in outcome["recoveries"]:
        chart.markers.append(Marker(r["step"], str(r["number"]), r["title"]))
    for z in outcome["resizes"]:
        chart.markers.append(Marker(z["step"], f"→{z['to']}", f"{z['to']} ranks", "resize"))
    return chart.svg("losses of both runs")


def recovery_rows(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """Recoveries with their bars; all on one scale but for those that waited (hang, cold
    replacement), which fill theirs.
    """
    rows = outcome["recoveries"]
    quick = [r["total_ms"] for r in rows if not _waited(r)]
    longest = max(quick, default=0.0)
    return [
        {
            **r,
            "cut": r["total_ms"] > longest,
            "bar": _safe(stacked_bar(list(r["phases_ms"].items()), max(longest, r["total_ms"]))),
        }
        for r in rows
    ]


def _waited(recovery: dict[str, Any]) -> bool:
    return "replace" in recovery["phases_ms"] or recovery["action"] in ("sigstop", "hang")


def process_lanes(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """For each rank its process in every generation; a process keeps its colour, a new one is
    marked.
    """
    colours: dict[int, int] = {}
    generations = outcome["processes"]
    lanes: list[dict[str, Any]] = []
    for rank in range(max((len(g["pids"]) for g in generations), default=0)):
        cells: list[dict[str, Any]] = []
        before: int | None = None
        for generation in generations:
            pid = generation["pids"][rank] if rank < len(generation["pids"]) else None
            if pid is not None:
                colours.setdefault(pid, len(colours) % 10)
            changed = None not in (pid, before) and pid != before
            cells.append({"pid": pid, "colour": colours.get(pid or 0, 0), "changed": changed})
            before = before if pid is None else pid
        lanes.append({"rank": rank, "cells": cells})
    return lanes
