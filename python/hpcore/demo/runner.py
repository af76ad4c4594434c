"""Runs the demo: text, undisturbed run, disturbed run with resizes, outcome. Main thread; the agent
runs in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import hpcore
from hpcore.agent.agent import Agent
from hpcore.agent.options import AgentOptions
from hpcore.demo import text
from hpcore.demo.display import Display
from hpcore.demo.follower import EventFollower
from hpcore.demo.outcome import outcome_of
from hpcore.demo.plan import Plan
from hpcore.demo.run_record import Event, RunRecord
from hpcore.errors import HpcoreError, NotFound
from hpcore.report.page import write_report


def example_script() -> Path:
    """examples/train_text.py of the checkout or of the installed package. Raises NotFound."""
    package = Path(hpcore.__file__).resolve().parent
    places = [package.parent.parent / "examples", package / "examples"]
    for place in places:
        script = place / "train_text.py"
        if script.is_file():
            return script
    raise NotFound(
        f"train_text.py is neither in {places[0]} nor in {places[1]}: run the demo from a checkout"
    )


def run_demo(plan: Plan, folder: Path, console: Console) -> dict[str, Any]:
    """Runs all parts; writes report.html and report.json into `folder`; returns the outcome.

    Raises NotFound, InvalidArgument, OSError, KeyboardInterrupt (a run was interrupted).
    """
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    script = example_script()
    data = folder / "text.hpd"
    about = text.build(data, plan.text_bytes)
    with Display(plan, console) as display:
        display.say(
            f"text: {about.documents:,} files of Python's standard library, {about.tokens:,} bytes"
        )
        command = [str(script), *plan.arguments(str(data))]
        calm, calm_code = _run("undisturbed", plan, folder, command, display)
        if calm_code:
            raise HpcoreError(
                f"the undisturbed run ended with {calm_code}: see {folder}/undisturbed"
            )
        disturbed, code = _run("disturbed", plan, folder, command, display)
    outcome = outcome_of(plan, calm, disturbed, (calm_code, code), time.monotonic() - began)
    (folder / "report.json").write_text(json.dumps(outcome, indent=1) + "\n")
    write_report(outcome, folder / "report.html")
    return outcome


def _run(
    name: str, plan: Plan, folder: Path, command: Sequence[str], display: Display
) -> tuple[RunRecord, int]:
    """One run; only the disturbed one has faults and resizes."""
    log_dir = folder / name
    events = log_dir / "events.jsonl"
    events.unlink(missing_ok=True)
    hurt = name == "disturbed"
    agent = Agent(
        AgentOptions(
            nproc=plan.nproc,
            standbys=plan.standbys,
            command=command,
            log_dir=str(log_dir),
            inject=[fault.rule for fault in plan.faults] if hurt else [],
            terminal=False,
        )
    )
    record = RunRecord()
    resizes = dict(plan.resizes) if hurt else {}

    def on_event(event: Event) -> None:
        try:
            take(event)
        except BaseException:
            agent.stop(1, "the demo failed")
            raise

    def take(event: Event) -> None:
        record.add(event)
        display.event(name, event, record)
        if event["event"] == "commit" and event["rank"] == 0:
            size = resizes.pop(event["step"] + 1, None)
            if size is not None:
                agent.resize(size)

    display.begin(name)
    with EventFollower(events, on_event):
        code = agent.run()
    if code == 128 + 2:
        raise KeyboardInterrupt
    return record, code
