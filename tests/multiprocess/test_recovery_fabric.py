"""Heals over a fabric: ranks of one node that are treated as if each were on a host of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from drills import Outcome, train

from hpcore import _core, errors

pytestmark = pytest.mark.torch


@pytest.fixture
def fabric(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    try:
        _core.Fabric(provider="tcp", domains=["lo"])
    except (errors.NotFound, errors.Unsupported) as error:
        pytest.skip(str(error))
    monkeypatch.setenv("HPCORE_TRANSPORT", "fabric")
    monkeypatch.setenv("HPCORE_FABRIC", "tcp@lo")
    return monkeypatch


def check(outcome: Outcome, expected: Outcome, faults: int) -> None:
    assert outcome.code == 0, outcome.story()
    assert len(outcome.events("fault_injected")) == faults, outcome.story()
    assert outcome.results() == expected.results(), outcome.story()


def test_lost_ranks_take_their_state_from_all_others_over_the_fabric(
    fabric: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed = train(tmp_path / "undisturbed", standbys=0, steps=8)
    faults = [
        "rank=1 step=2 point=backward action=sigkill",
        "rank=0 step=4 point=optimizer action=sigkill",
        "rank=2 step=6 point=forward action=exception",
    ]
    outcome = train(tmp_path / "faults", *faults, steps=8)
    check(outcome, undisturbed, 3)
    healed = outcome.events("heal", role="receiver", rank=1, generation=2)[0]
    assert healed["method"].startswith("fabric/"), healed
    assert sorted(healed["taken"]) == ["0", "2"], healed
    assert "provider tcp" in healed["fabric"] or "provider net" in healed["fabric"], healed
    assert healed["gb_per_s"] > 0
    assert "took" in outcome.output and "by fabric/" in outcome.output


def test_source_killed_while_it_serves_and_a_second_loss_in_the_heal(
    fabric: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed = train(tmp_path / "undisturbed", standbys=0, steps=6)
    faults = [
        "rank=1 step=3 point=before_ready action=sigkill",
        "rank=2 step=3 point=heal action=sigkill",
    ]
    check(train(tmp_path / "faults", *faults, standbys=2, steps=6), undisturbed, 2)


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("HPCORE_LIBFABRIC", "/nowhere/libfabric.so", "no libfabric found"),
        ("HPCORE_FABRIC", "nonsense", "offers no provider nonsense"),
    ],
)
def test_job_without_a_way_to_other_hosts_says_why(
    variable: str, value: str, why: str, fabric: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fabric.setenv(variable, value)
    outcome = train(tmp_path, steps=3, nproc=2, standbys=0)
    assert outcome.code != 0
    assert "can read none of its sources, ranks [0], which are on other hosts" in outcome.output
    assert why in outcome.output, outcome.story()
