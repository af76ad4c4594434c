"""Fault rules: parsed, matched, carried out once."""

from __future__ import annotations

import pytest

from hpcore.drill import Drill, DrillError, Rule, parse
from hpcore.errors import InvalidArgument


def test_rules_are_parsed_in_order() -> None:
    rules = parse(
        "rank=1 step=3 point=backward action=sigkill; standby=1 point=rehearsal action=hang\n"
    )
    assert rules == [
        Rule(0, "backward", "sigkill", 1, 3),
        Rule(1, "rehearsal", "hang", None, None),
    ]
    assert parse("") == []


@pytest.mark.parametrize(
    "text",
    [
        "rank=1 step=3 point=sideways action=sigkill",
        "rank=1 step=3 point=forward action=tickle",
        "step=3 point=forward action=sigkill",
        "rank=1 standby=1 point=forward action=sigkill",
        "rank=one point=forward action=sigkill",
        "rank=1 rank=2 point=forward action=sigkill",
        "rank=1 point=forward action=sigkill when=now",
    ],
)
def test_rule_that_is_wrong_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"fault 'rank=|fault 'step="):
        parse(text)


def test_drill_fires_at_its_place_once() -> None:
    fired: list[int] = []
    seen: list[tuple[str, int]] = []

    def once(index: int) -> bool:
        fired.append(index)
        return fired.count(index) == 1

    rules = parse(
        "rank=1 step=3 point=forward action=exception; rank=1 point=forward action=exception"
    )
    drill = Drill(rules, once, lambda rule, step: seen.append((rule.point, step)))
    drill.fire("forward", 0, 3)
    drill.fire("backward", 1, 3)
    drill.fire("forward", None, 3)
    assert not seen and not drill.armed("forward", 0, 3) and drill.armed("forward", 1, 3)
    with pytest.raises(DrillError, match="forward in step 3"):
        drill.fire("forward", 1, 3)
    with pytest.raises(DrillError):
        drill.fire("forward", 1, 7)
    drill.fire("forward", 1, 3)
    assert seen == [("forward", 3), ("forward", 7)]


def test_drill_leaves_a_fault_that_another_worker_had() -> None:
    drill = Drill(parse("rank=1 point=forward action=exception"), lambda _: False, lambda *_: None)
    drill.fire("forward", 1, 0)
    assert not drill.armed("forward", 1, 0)
