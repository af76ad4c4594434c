"""events.jsonl: whole lines from many writers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcore.agent.events import EventLog, read_events
from hpcore.errors import InvalidArgument


def test_event_log_keeps_order_and_fields(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append("start", pid=1)
        log.append("stop", ns=77, reason="because")
    first, second = read_events(tmp_path / "events.jsonl")
    assert first["event"] == "start" and first["pid"] == 1 and first["ns"] > 0
    assert second == {"ns": 77, "event": "stop", "reason": "because"}


def test_event_log_shared_by_processes_has_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            log = EventLog(path)
            for index in range(200):
                log.append("commit", child=child, index=index, pad="x" * 300)
            os._exit(0)
        children.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
    events = list(read_events(path, "commit"))
    assert len(events) == 600
    for child in range(3):
        assert [e["index"] for e in events if e["child"] == child] == list(range(200))


def test_event_log_closed_twice_drops_events(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.close()
    log.close()
    log.append("late")
    assert list(read_events(tmp_path / "events.jsonl")) == []


def test_read_events_leaves_out_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"ns":1,"event":"a"}\n{"ns":2,"ev')
    assert [e["event"] for e in read_events(path)] == ["a"]


def test_read_events_names_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"ns":1,"event":"a"}\nnonsense\n')
    with pytest.raises(InvalidArgument, match=r"events\.jsonl:2"):
        list(read_events(path))
