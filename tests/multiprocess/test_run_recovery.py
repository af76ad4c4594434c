"""`hpcore run` with a script that recovers: a rank lost at any point is replaced, nothing is lost
or done twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from running import Run, expected, fake_job

POINTS = ("forward", "before_ready", "after_ready", "after_commit", "apply")


@pytest.mark.parametrize("action", ["sigkill", "sigstop", "exception"])
@pytest.mark.parametrize("point", POINTS)
def test_rank_hurt_at_any_point_leaves_the_result(tmp_path: Path, point: str, action: str) -> None:
    command = fake_job(12, 0.01, f"1:5:{point}:{action}")
    with Run(tmp_path, command, nproc=3, standbys=1) as run:
        assert run.finish() == 0
    assert run.results() == [expected(12)] * 3
    assert [e["generation"] for e in run.all("roster")] == [1, 2]
    second = run.all("roster")[1]
    assert len(second["members"]) == 3
    if action != "exception":
        assert [e["rank"] for e in run.all("death") if e["rank"] is not None] == [1]
        assert len(second["receivers"]) == 1


@pytest.mark.parametrize("point", ["reform", "heal"])
def test_newcomer_killed_while_it_joins_is_replaced(tmp_path: Path, point: str) -> None:
    command = fake_job(10, 0.01, "1:4:forward:sigkill", f"1:0:{point}:sigkill")
    with Run(tmp_path, command, nproc=3, standbys=2) as run:
        assert run.finish() == 0
    assert run.results() == [expected(10)] * 3


def test_two_ranks_killed_at_once_are_replaced(tmp_path: Path) -> None:
    command = fake_job(10, 0.01, "0:4:forward:sigkill", "2:4:forward:sigkill")
    with Run(tmp_path, command, nproc=4, standbys=2) as run:
        assert run.finish() == 0
    assert run.results() == [expected(10)] * 4


def test_rank_lost_without_standby_gets_a_cold_replacement(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(10, 0.01, "1:4:forward:sigkill"), nproc=2) as run:
        assert run.finish() == 0
    assert run.results() == [expected(10)] * 2


def test_hanging_rank_is_killed_and_replaced(tmp_path: Path) -> None:
    command = fake_job(40, 0.01, "1:20:forward:hang")
    with Run(tmp_path, command, nproc=3, standbys=1, recovery_deadline_s=20.0) as run:
        assert run.finish() == 0
    assert run.results() == [expected(40)] * 3
    assert run.all("hang")[0]["rank"] == 1


def test_world_shrinks_and_grows_again_if_min_allows(tmp_path: Path) -> None:
    command = fake_job(60, 0.02, "1:4:forward:sigkill")
    with Run(tmp_path, command, nproc=3, min=2) as run:
        assert run.finish() == 0
    assert run.results() == [expected(60)] * 3
    assert [len(e["members"]) for e in run.all("roster")] == [3, 2, 3]


def test_used_standby_is_replaced_after_the_first_commit(tmp_path: Path) -> None:
    command = fake_job(60, 0.02, "0:4:forward:sigkill", "1:30:forward:sigkill")
    with Run(tmp_path, command, nproc=2, standbys=1) as run:
        assert run.finish() == 0
    assert run.results() == [expected(60)] * 2
    assert len(run.all("spawn", role="standby")) >= 2


@pytest.mark.parametrize("action", ["sigkill", "sigstop", "exit"])
def test_standby_lost_in_its_rehearsal_is_replaced(tmp_path: Path, action: str) -> None:
    with Run(tmp_path, fake_job(40, 0.02, f"s:*:rehearsal:{action}"), standbys=1) as run:
        run.wait("warm")
        assert run.finish() == 0
    assert run.results() == [expected(40)] * 2
    assert len(run.all("roster")) == 1


def test_standbys_that_always_die_are_given_up(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(60, 0.02, "s:*:rehearsal:exit!"), standbys=1) as run:
        assert run.finish() == 0
    assert len(run.all("spawn", role="standby")) == 3


def test_resize_lets_ranks_go_and_takes_them_back(tmp_path: Path) -> None:
    with Run(tmp_path, fake_job(150, 0.01), nproc=4) as run:
        run.wait("first_commit", generation=1)
        run.agent.resize(2)
        run.wait("first_commit", generation=2)
        run.agent.resize(4)
        run.wait("roster", generation=3)
        assert run.finish() == 0
    worlds = [[m["pid"] for m in e["members"]] for e in run.all("roster")]
    assert [len(world) for world in worlds] == [4, 2, 4]
    assert worlds[0][:2] == worlds[1] and sorted(worlds[0]) == sorted(worlds[2])
    assert len(run.all("roster")[2]["receivers"]) == 2
    assert run.results() == [expected(150)] * 4
