"""`hpcore run` on several hosts: whatever happens to one, the job ends with the bits of the run
that nothing happened to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster
import pytest

from hpcore.agent.agent import Agent
from hpcore.agent.options import AgentOptions

WHY_NOT = cluster.why_not()
pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or ""),
]
STEPS = 150
NODES = ("--nnodes", "2", "--nproc", "1", "--recovery-deadline", "60")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[cluster.Cluster]:
    made = cluster.Cluster(tmp_path, 3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two ranks on one host: where ranks are makes no difference to a bit."""
    out = tmp_path_factory.mktemp("undisturbed")
    agent = Agent(
        AgentOptions(
            nproc=2,
            command=[str(cluster.SCRIPT), str(out), str(STEPS)],
            log_dir=str(out / "log"),
            terminal=False,
        )
    )
    assert agent.run() == 0, agent.stop_reason
    results = [json.loads((out / f"rank{rank}.json").read_text())["result"] for rank in (0, 1)]
    assert same(*results)
    return results[0]


def same(result: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = ("digest", "diary", "rate", "scale", "world_size")
    return all(result[key] == other[key] for key in keys)


def leads(hosts: cluster.Cluster, names: list[str]) -> str:
    """The one whose node has number 0 took the lead: it enrolled first."""
    for name in names:
        for event in hosts.events(name, "roster"):
            mine = [m for m in event["members"] if m["slot"] < 64]
            if mine and mine[0]["node"] == 0:
                return name
    raise AssertionError(hosts.said())


def test_hosts_train_as_one(hosts: cluster.Cluster, undisturbed: Any) -> None:
    names = [hosts.start(host, STEPS, *NODES) for host in range(2)]
    hosts.finish(*names)
    results = hosts.results(*names)
    assert sorted(results) == [0, 1]
    assert all(same(result, undisturbed) for result in results.values())


def two_and_a_spare(hosts: cluster.Cluster) -> tuple[str, str, str]:
    """The name of the lead, of the other node with a rank, and of the spare, which is warm."""
    (hosts.folder / "slow").touch()
    names = [hosts.start(host, STEPS, *NODES) for host in range(2)]
    for name in names:
        hosts.wait_step(name, 3)
    spare = hosts.start(2, STEPS, *NODES)
    hosts.wait(lambda: any(hosts.events(spare, "warm")), "the spare does not get warm")
    lead = leads(hosts, names)
    return lead, next(name for name in names if name != lead), spare


def test_spare_node_takes_the_place_of_one_that_was_killed(
    hosts: cluster.Cluster, undisturbed: Any
) -> None:
    lead, other, spare = two_and_a_spare(hosts)
    hosts.kill_host(other)
    hosts.finish(lead, spare)
    results = hosts.results(lead, spare)
    assert sorted(results) == [0, 1]
    assert all(same(result, undisturbed) for result in results.values())


def test_job_outlives_the_agent_that_leads(hosts: cluster.Cluster, undisturbed: Any) -> None:
    lead, other, spare = two_and_a_spare(hosts)
    hosts.processes[lead].kill()  # the agent alone; its workers go with it
    hosts.finish(other, spare)
    results = hosts.results(other, spare)
    assert sorted(results) == [0, 1]
    assert all(same(result, undisturbed) for result in results.values())


@pytest.mark.parametrize("which", ["lead", "other"])
def test_host_that_is_cut_off_stops_and_comes_back_as_another(
    hosts: cluster.Cluster, undisturbed: Any, which: str
) -> None:
    lead, other, spare = two_and_a_spare(hosts)
    cut, left = (lead, other) if which == "lead" else (other, lead)
    number = int(cut.removeprefix("host"))
    before = max(event["generation"] for event in hosts.events(left, "roster"))
    hosts.cut(number)
    hosts.wait_step(left, 0, before)
    hosts.wait(lambda: any(hosts.events(cut, "exit")), "what was cut off does not stop")
    stopped = next(hosts.events(cut, "stop"))
    assert "stopped its workers" in stopped["reason"]
    new = next(e for e in hosts.events(left, "roster") if e["generation"] > before)
    exits = [event["ns"] for event in hosts.events(cut, "exit")]
    assert max(exits) < new["published_ns"]  # one clock: hosts are namespaces
    hosts.mend(number)
    hosts.finish(left, spare, cut)
    results = hosts.results(left, spare)
    assert sorted(results) == [0, 1]
    assert all(same(result, undisturbed) for result in results.values())
