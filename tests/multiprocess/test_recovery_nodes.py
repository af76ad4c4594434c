"""A whole node is lost, its ranks and its memory: state comes back from the neighbour's copies.

The two nodes are a double (two_nodes.py): one agent, two shadow memories, two keepers, ranks that
read each other's copies over the fabric.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from drills import Outcome, await_pause, train

from hpcore import _core, errors

pytestmark = pytest.mark.torch

STEPS = 8
TWO_NODES = str(Path(__file__).with_name("two_nodes.py"))


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    try:
        _core.Fabric(provider="tcp", domains=["lo"])
    except (errors.NotFound, errors.Unsupported) as error:
        pytest.skip(str(error))
    monkeypatch.setenv("HPCORE_FABRIC", "tcp@lo")
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    return monkeypatch


def run(folder: Path, replicas: int, lose: bool) -> Outcome:
    def meanwhile(agent: subprocess.Popen[str]) -> None:
        await_pause(agent, folder, 4)
        if lose:
            agent.send_signal(signal.SIGUSR1)
        (folder / "go").touch()

    return train(
        folder,
        script="train_two_nodes.py",
        nproc=4,
        standbys=2,
        steps=STEPS,
        arguments=(str(replicas),),
        agent=(TWO_NODES,),
        meanwhile=meanwhile,
    )


def test_lost_node_comes_back_from_the_copies_on_its_neighbour(
    nodes: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes.setenv("TEST_PAUSE", "4")
    undisturbed = run(tmp_path / "undisturbed", 1, lose=False)
    assert undisturbed.code == 0, undisturbed.story()
    assert not undisturbed.events("shadow_late"), undisturbed.story()
    outcome = run(tmp_path / "lost", 1, lose=True)
    assert outcome.code == 0, outcome.story()
    assert outcome.results() == undisturbed.results(), outcome.story()
    healed = outcome.events("heal", tier="shadow")
    assert {event["rank"] for event in healed} >= {0, 2}, outcome.story()
    assert all(event["step"] in (3, 4) for event in healed)
    # One of the two came up on node 1, where the copies are; the other read them from there.
    far = [event for event in healed if event.get("host") == "host1"]
    assert far and {event["rank"] for event in far} <= {0, 2}, outcome.story()
    assert all(e["method"].startswith("fabric/") and e["gb_per_s"] > 0 for e in far)
