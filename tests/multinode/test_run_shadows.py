"""Ranks that keep shadow copies, on several hosts: each node's keeper holds those of its neighbour,
and what a rank alone knew outlives its host. Models that are sharded over hosts are refused, and so
are scripts without a Job."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster
import pytest

from hpcore import _core, errors

WHY_NOT = cluster.why_not()
pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or ""),
]
STEPS = 150
SCRIPTS = cluster.ROOT / "tests" / "scripts"
NODES = ("--nnodes", "2", "--nproc", "1", "--recovery-deadline", "60")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    made = cluster.Cluster(tmp_path_factory.mktemp("hosts"), 3)
    yield made
    made.close()


def mark(rank: int) -> int:
    """What train_small.py's rank of this number knows at the end."""
    known = 0
    for step in range(STEPS):
        known = zlib.crc32(repr((known, rank, step)).encode())
    return known


def keepers(hosts: cluster.Cluster, name: str) -> list[int]:
    return [
        pid
        for pid in hosts.family(name)
        if b"hpcore.agent.keeper" in Path("/proc", str(pid), "cmdline").read_bytes()
    ]


def test_what_a_rank_knew_outlives_its_host(
    hosts: cluster.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        _core.Fabric(provider="tcp", domains=["lo"])
    except (errors.NotFound, errors.Unsupported) as error:
        pytest.skip(str(error))
    monkeypatch.setenv("HPCORE_FABRIC", "tcp@eth0")
    monkeypatch.setenv("TEST_SHADOW_EVERY", "1")
    (hosts.folder / "slow").touch()
    names = [hosts.start(host, STEPS, *NODES) for host in range(2)]
    for name in names:
        hosts.wait_step(name, 3)
    spare = hosts.start(2, STEPS, *NODES)
    hosts.wait(lambda: any(hosts.events(spare, "warm")), "the spare does not get warm")
    left, lost = names
    processes = [pid for name in (left, spare) for pid in keepers(hosts, name)]
    assert len(processes) == 2, hosts.said()
    gone = int(next(e for e in hosts.events(lost, "commit"))["rank"])
    hosts.kill_host(lost)
    hosts.finish(left, spare)
    results: dict[int, Any] = hosts.results(left, spare)
    assert sorted(results) == [0, 1], hosts.said()
    for rank, result in results.items():
        assert result["local"] == {"steps": STEPS, "mark": mark(rank)}, hosts.said()
    assert results[0]["digest"] == results[1]["digest"]
    brought = [e for e in hosts.events(spare, "rank_local") if e["bytes"]]
    assert [e["rank"] for e in brought] == [gone], hosts.said()
    for name in (left, spare):
        assert not list(hosts.events(name, "shadow_late")), hosts.said()
    assert not [pid for pid in processes if os.path.exists(f"/proc/{pid}")]


@pytest.mark.parametrize("kind", ["init", "shard"])
def test_what_needs_one_store_is_refused(
    hosts: cluster.Cluster, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By each node at once, with the way out; the job ends."""
    monkeypatch.setattr(cluster, "SCRIPT", SCRIPTS / "needs_one_store.py")
    monkeypatch.setenv("TEST_NEEDS", kind)
    options = (*NODES, "--job", f"refused-{kind}")
    names = [hosts.start(n, 1, *options, name=f"{kind}{n}") for n in range(2)]
    for name in names:
        assert hosts.processes[name].wait(cluster.PATIENCE_S) != 0, hosts.said()
    said = "".join((hosts.folder / f"{name}.txt").read_text() for name in names)
    assert "Unsupported" in said and "job.replicate(model)" in said, said
