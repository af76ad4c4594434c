"""Recoveries, checks and the report are computed from events alone; each check fails when what it
claims is broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from recorded_run import Event, calm_events, disturbed_events, small_plan

from hpcore.demo.outcome import outcome_of
from hpcore.demo.recoveries import recoveries_of
from hpcore.demo.run_record import RunRecord
from hpcore.report.page import render

PLAN = small_plan()


def outcome(change: Callable[[list[Event]], list[Event]] = lambda events: events) -> dict[str, Any]:
    calm = RunRecord.of(calm_events(PLAN))
    disturbed = RunRecord.of(change(disturbed_events(PLAN)))
    return outcome_of(PLAN, calm, disturbed, (0, 0), 12.0)


def failed(result: dict[str, Any]) -> list[str]:
    return [check["name"] for check in result["checks"] if not check["holds"]]


def test_outcome_of_an_equal_run_holds_every_check() -> None:
    result = outcome()
    assert failed(result) == []
    assert result["ok"]
    assert result["summary"]["largest_difference_before_resize"] == 0.0
    assert 0 < result["summary"]["largest_difference_after_resize"] < 1e-6


def test_recovery_is_split_into_its_phases() -> None:
    first = outcome()["recoveries"][0]
    assert first["phases_ms"] == pytest.approx(
        {"detect": 0.5, "decide": 1.5, "notify": 1, "reform": 1, "heal": 6, "first_step": 100}
    )
    assert first["total_ms"] == pytest.approx(110)
    assert (first["survivors"], first["survivors_kept"]) == (3, 3)


def test_recovery_hit_by_the_next_fault_says_so() -> None:
    _, second, third = outcome()["recoveries"]
    assert second["interrupted"] and "first_step" not in second["phases_ms"]
    assert second["phases_ms"]["heal"] == pytest.approx(2)
    assert third["phases_ms"]["replace"] == pytest.approx(700)
    assert third["phases_ms"]["decide"] == pytest.approx(1)
    assert third["phases_ms"]["first_step"] == pytest.approx(100)


def test_recovery_that_nobody_noticed_is_no_recovery() -> None:
    events = [e for e in disturbed_events(PLAN) if e["event"] != "death"]
    assert all(r.note == "never noticed" for r in recoveries_of(RunRecord.of(events), {}))
    result = outcome(lambda events: [e for e in events if e["event"] != "death"])
    assert not result["ok"]


def edit(events: list[Event], wanted: Callable[[Event], bool], **fields: Any) -> list[Event]:
    assert any(map(wanted, events))
    return [{**e, **fields} if wanted(e) else e for e in events]


def is_commit(step: int, rank: int) -> Callable[[Event], bool]:
    return lambda e: e["event"] == "commit" and e["step"] == step and e["rank"] == rank


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda e: edit(e, is_commit(4, 0), sums={"loss": 1.0}), "to the bit"),
        (lambda e: [x for x in e if not is_commit(11, 0)(x)], "exactly once"),
        (lambda e: [*e, *filter(is_commit(5, 0), e)], "exactly once"),
        (lambda e: edit(e, is_commit(5, 1), samples=[0, 1]), "sample ledger"),
        (lambda e: edit(e, is_commit(5, 1), samples=[42]), "global batch"),
        (lambda e: [x for x in e if x["event"] != "fault_injected"], "every planned fault"),
    ],
)
def test_outcome_fails_when_a_claim_is_broken(
    change: Callable[[list[Event]], list[Event]], name: str
) -> None:
    result = outcome(change)
    assert not result["ok"]
    assert any(name in failure for failure in failed(result))


def test_outcome_fails_when_a_survivor_was_restarted() -> None:
    events = disturbed_events(PLAN)
    second = next(e for e in events if e["event"] == "roster" and e["generation"] == 2)
    second["members"][3]["pid"] = 77
    assert any("PIDs" in name for name in failed(outcome(lambda _: events)))


def test_outcome_fails_when_a_rank_given_back_is_another_process() -> None:
    events = disturbed_events(PLAN)
    last = max((e for e in events if e["event"] == "roster"), key=lambda e: e["generation"])
    last["members"][2]["pid"] = 77
    assert failed(outcome(lambda _: events)) == [
        "ranks were taken away and given back in place: the same processes"
    ]


def test_outcome_fails_when_a_run_did() -> None:
    record = RunRecord.of(calm_events(PLAN))
    result = outcome_of(PLAN, record, RunRecord.of(disturbed_events(PLAN)), (0, 1), 1.0)
    assert not result["ok"]


class Tags(HTMLParser):
    """Checks that tags are closed in the order in which they were opened, and collects what is
    loaded from elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "rect", "circle", "path"):
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "circle", "path"):
            assert self.open.pop() == tag


@pytest.mark.parametrize("broken", [False, True])
def test_report_is_one_well_formed_file(broken: bool) -> None:
    result = outcome(
        (lambda e: edit(e, is_commit(4, 0), sums={"loss": 1.0})) if broken else lambda e: e
    )
    page = render(json.loads(json.dumps(result)))
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and tags.loaded == []
    assert "http" not in page.replace("http-equiv", "")
    assert ("Something is not equal" in page) == broken
    assert all(fault.title in page for fault in PLAN.faults)


def test_report_of_a_run_that_ended_at_once_is_still_written() -> None:
    empty = RunRecord.of([])
    page = render(outcome_of(PLAN, empty, empty, (1, 1), 1.0))
    assert "Something is not equal" in page
