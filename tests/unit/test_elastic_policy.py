"""The scaling policy: what is refused, what a file may say, and each rule once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcore.elastic import (
    GrowthFailed,
    Lost,
    Places,
    Policy,
    Preempted,
    Replaced,
    Resized,
    Scaling,
    SizeSettings,
    Tick,
    plan,
)
from hpcore.errors import InvalidArgument

POLICY = Policy(min=2, max=8, settle_s=30.0, standby_wait_s=10.0, snooze_s=300.0, grace_s=30.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"min": 0, "max": 4}, "min 0 must be from 1 to max 4"),
        ({"min": 5, "max": 4}, "min 5"),
        ({"max": 8, "step": 2, "sizes": (2, 4)}, "one of them, not both"),
        ({"max": 8, "step": 0}, "step 0"),
        ({"max": 8, "sizes": (4, 16)}, r"sizes \[16\] are not from min 1 to max 8"),
        ({"min": 2, "max": 8, "sizes": (1, 4)}, r"sizes \[1\]"),
        ({"max": 8, "settle_s": -1.0}, "settle_s -1.0"),
        ({"max": 8, "grace_s": float("nan")}, "grace_s nan"),
        (
            {"max": 8, "sizes": (4, 8), "by_size": {6: SizeSettings()}},
            "6 ranks.*allowed size: 4, 8",
        ),
        ({"max": 8, "by_size": {4: SizeSettings(lr=0.0)}}, "by_size 4: lr 0.0"),
        ({"max": 8, "by_size": {4: SizeSettings(global_batch=0)}}, "by_size 4: global_batch 0"),
    ],
)
def test_policy_refuses(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        Policy(**values)


def test_policy_fits_sizes_to_places() -> None:
    assert [POLICY.fit(n) for n in (0, 1, 2, 7, 8, 100)] == [0, 0, 2, 7, 8, 8]
    step = Policy(min=2, max=9, step=3)
    assert step.allowed == (2, 5, 8) and [step.fit(n) for n in (1, 4, 5, 9)] == [0, 2, 5, 8]
    sizes = Policy(max=8, sizes=(8, 1, 4, 4))
    assert sizes.allowed == (1, 4, 8) and [sizes.fit(n) for n in (0, 3, 7, 9)] == [0, 1, 4, 8]
    assert [sizes.next_above(n) for n in (0, 1, 8)] == [1, 4, None]
    assert (
        hash(sizes) == hash(Policy(max=8, sizes=(1, 4, 8))) and sizes.describe_sizes() == "1, 4, 8"
    )


def test_policy_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "min: 2\nmax: 8\nsizes: [2, 4, 8]\nsettle_s: 60\npriority: 3\n"
        "by_size:\n  4: {global_batch: 64, lr: 1.0e-3}\n  8: {lr: 0.002}\n"
    )
    policy = Policy.from_file(str(path))
    assert policy.allowed == (2, 4, 8) and policy.settle_s == 60.0 and policy.priority == 3
    assert policy.by_size == {
        4: SizeSettings(global_batch=64, lr=1e-3),
        8: SizeSettings(lr=0.002),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max: 8\nmaximum: 9\n", "unknown: maximum; there are by_size,"),
        ("min: 2\n", "max is missing"),
        ("- 1\n", "holds a list"),
        ("max: [8\n", "policy .*policy.yaml"),
        ("max: eight\n", "max 'eight' must be a whole number"),
        ("max: true\n", "max True must be a whole number"),
        ("max: 8\nsettle_s: soon\n", "settle_s 'soon' must be a number"),
        ("max: 8\nsizes: 4\n", "sizes 4 must be a list"),
        ("max: 8\nby_size: {4: {batch: 3}}\n", "by_size 4: .*global_batch"),
        ("max: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    ],
)
def test_policy_file_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=said):
        Policy.from_file(str(path))
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        Policy.from_file(str(tmp_path / "none.yaml"))


def running(size: int, places: int, policy: Policy = POLICY) -> Scaling:
    scaling = plan(policy, Scaling(), Places(places), 0.0).scaling
    return plan(policy, scaling, Resized(size), 1.0).scaling


def test_job_starts_on_what_there_is_and_grows_when_places_have_settled() -> None:
    first = plan(POLICY, Scaling(), Places(5), 0.0)
    assert first.target == 5
    scaling = plan(POLICY, first.scaling, Resized(5), 2.0).scaling
    more = plan(POLICY, scaling, Places(7), 100.0)
    assert (more.target, more.ask_again_s) == (5, 130.0)
    early = plan(POLICY, more.scaling, Tick(), 129.0)
    assert early.target == 5
    assert plan(POLICY, early.scaling, Tick(), 130.0).target == 7


def test_lost_ranks_wait_for_standbys_then_the_job_shrinks() -> None:
    lost = plan(POLICY, running(4, 4), Lost(1), 50.0)
    assert (lost.target, lost.ask_again_s) == (4, 60.0)
    second = plan(POLICY, lost.scaling, Lost(1), 55.0)  # does not begin the wait anew
    assert second.ask_again_s == 60.0
    replaced = plan(POLICY, second.scaling, Replaced(2), 58.0)
    assert replaced.target == 4 and plan(POLICY, replaced.scaling, Tick(), 70.0).target == 4
    assert plan(POLICY, second.scaling, Tick(), 60.0).target == 2
    third = plan(POLICY, second.scaling, Lost(1), 59.0)
    parked = plan(POLICY, third.scaling, Tick(), 60.0)
    assert parked.target == 0 and "below min 2" in parked.reason


def test_preempted_ranks_leave_within_deadline_and_grace() -> None:
    scaling = running(6, 6)
    taken = plan(POLICY, scaling, Preempted(2, 120.0), 10.0)
    assert (taken.target, taken.leave_by_s) == (4, 40.0)
    assert plan(POLICY, scaling, Preempted(2, 5.0), 10.0).leave_by_s == 15.0
    below = plan(POLICY, scaling, Preempted(5, 5.0), 10.0)
    assert below.target == 0 and "parked, below min 2" in below.reason
    # A parked job comes back when places have settled, at min or above.
    parked = plan(POLICY, below.scaling, Resized(0), 12.0).scaling
    back = plan(POLICY, parked, Places(3), 20.0)
    assert (back.target, back.ask_again_s) == (0, 50.0)
    assert plan(POLICY, back.scaling, Tick(), 50.0).target == 3


def test_failed_growth_is_snoozed() -> None:
    scaling = plan(POLICY, running(4, 4), Places(8), 100.0).scaling
    assert plan(POLICY, scaling, Tick(), 130.0).target == 8
    failed = plan(POLICY, scaling, GrowthFailed(), 131.0)
    assert (failed.target, failed.ask_again_s) == (4, 431.0)
    assert plan(POLICY, failed.scaling, Tick(), 430.0).target == 4
    assert plan(POLICY, failed.scaling, Tick(), 431.0).target == 8
    # Places that go are left at once, snooze or not.
    assert plan(POLICY, failed.scaling, Places(3), 200.0).target == 3
