"""What the demo shows while it runs and at its end, from a recorded run; and the follower that
feeds it.
"""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest
from recorded_run import calm_events, disturbed_events, small_plan
from rich.console import Console

from hpcore.demo.display import Display, print_outcome
from hpcore.demo.follower import EventFollower
from hpcore.demo.outcome import outcome_of
from hpcore.demo.run_record import Event, RunRecord

PLAN = small_plan()


@pytest.mark.parametrize("terminal", [False, True])
def test_display_tells_faults_and_recoveries(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140)
    record = RunRecord()
    with Display(PLAN, console) as display:
        display.begin("disturbed")
        for event in disturbed_events(PLAN):
            record.add(event)
            display.event("disturbed", event, record)
    text = out.getvalue()
    assert all(fault.title in text for fault in PLAN.faults)
    assert "fault 1 back after 110.0 ms: detect 0.5  decide 1.5" in text
    assert "fault 2 interrupted after 6.0 ms" in text
    assert "resize to 2 ranks" in text and "step  11" in text.replace("12/12", "step  11")


def test_display_of_the_outcome_names_what_failed() -> None:
    out = io.StringIO()
    calm = RunRecord.of(calm_events(PLAN))
    disturbed = RunRecord.of(disturbed_events(PLAN))
    print_outcome(
        Console(file=out, width=140), outcome_of(PLAN, calm, disturbed, (0, 1), wall_s=1.0)
    )
    text = out.getvalue()
    assert "FAIL both runs ended by themselves: exit codes 0 and 1" in text
    lines = text.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 7 and "Something is not equal" in text


def test_follower_gives_every_event_once_and_waits_for_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    seen: list[Event] = []
    arrived = threading.Condition()

    def take(event: Event) -> None:
        with arrived:
            seen.append(event)
            arrived.notify_all()

    with EventFollower(path, take):
        with path.open("a") as stream:
            stream.write('{"n": 1}\n{"n":')
            stream.flush()
            with arrived:
                assert arrived.wait_for(lambda: len(seen) == 1, 30)
            stream.write(" 2}\n")
        with path.open("a") as stream:
            stream.write(json.dumps({"n": 3}) + "\n")
    assert [event["n"] for event in seen] == [1, 2, 3]


def test_follower_raises_what_its_listener_raised(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"n": 1}\n')

    def fail(event: Event) -> None:
        raise ValueError("no")

    follower = EventFollower(path, fail)
    with pytest.raises(ValueError, match="no"):
        follower.close()
    follower.close()
