"""The coordinator contract, held by each coordinator: compare-and-swap, leases, watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import etcd_server
import pytest

from hpcore.errors import CoordinatorUnavailable, CorruptData
from hpcore.membership.coordinator import Coordinator, LocalCoordinator
from hpcore.membership.etcd import EtcdAddress, EtcdCoordinator
from hpcore.membership.roster import Member, Roster
from hpcore.membership.rosters import KeptRosters

NO_ETCD = etcd_server.why_not()


@pytest.fixture(scope="module", autouse=True)  # so that it is there before the guard looks
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd_server.EtcdServers | None]:
    if NO_ETCD:
        yield None
        return
    servers = etcd_server.EtcdServers(tmp_path_factory.mktemp("etcd"))
    yield servers
    servers.close()


@pytest.fixture(
    params=[
        "local",
        pytest.param("etcd", marks=pytest.mark.skipif(bool(NO_ETCD), reason=NO_ETCD or "")),
    ]
)
def coordinator(request: pytest.FixtureRequest) -> Iterator[Coordinator]:
    made: Coordinator = LocalCoordinator()
    if request.param == "etcd":
        made = EtcdCoordinator(EtcdAddress.parse(request.getfixturevalue("etcd").address))
        for key, entry in made.entries("").items():
            made.delete(key, entry.version)
    yield made
    made.close()


def eventually(told: Callable[[], bool], limit_s: float = 20.0) -> None:
    until = time.monotonic() + limit_s
    while not told():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.01)


def test_coordinator_swaps_only_what_is_as_expected(coordinator: Coordinator) -> None:
    assert coordinator.get("a") is None
    first = coordinator.swap("a", b"1", 0)
    assert first
    assert coordinator.swap("a", b"2", 0) is None
    assert coordinator.swap("a", b"2", first + 100) is None
    second = coordinator.swap("a", b"\0\xff", first)
    assert second and second > first
    entry = coordinator.get("a")
    assert entry is not None and (entry.value, entry.version) == (b"\0\xff", second)


def test_coordinator_lets_one_of_many_win(coordinator: Coordinator) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: coordinator.swap("race", b"%d" % n, 0), range(16)))
    assert sum(version is not None for version in won) == 1
    entry = coordinator.get("race")
    assert entry is not None and entry.value == b"%d" % won.index(entry.version)


def test_coordinator_swaps_under_guards(coordinator: Coordinator) -> None:
    leader = coordinator.swap("leader", b"me", 0)
    assert leader
    assert coordinator.swap("x", b"1", 0, guards=(("leader", leader), ("none", 0)))
    assert coordinator.delete("leader", leader)
    assert coordinator.swap("y", b"1", 0, guards=(("leader", leader),)) is None
    assert coordinator.get("y") is None


def test_coordinator_lists_and_deletes(coordinator: Coordinator) -> None:
    for name in ("p/2", "p/1", "q/1"):
        coordinator.swap(name, name.encode(), 0)
    found = coordinator.entries("p/")
    assert [(key, entry.value) for key, entry in found.items()] == [
        ("p/1", b"p/1"),
        ("p/2", b"p/2"),
    ]
    assert not coordinator.delete("p/1", found["p/1"].version + 1)
    assert coordinator.delete("p/1", found["p/1"].version)
    assert not coordinator.delete("p/1", found["p/1"].version)
    assert list(coordinator.entries("p/")) == ["p/2"]


def test_coordinator_ends_keys_with_their_lease(coordinator: Coordinator) -> None:
    kept, left = coordinator.grant(60.0), coordinator.grant(1.0)
    coordinator.swap("kept", b"", 0, kept)
    coordinator.swap("left", b"", 0, left)
    assert coordinator.renew(kept)
    eventually(lambda: coordinator.get("left") is None)
    assert not coordinator.renew(left)
    assert coordinator.swap("late", b"", 0, left) is None
    entry = coordinator.get("kept")
    assert entry is not None and entry.lease == kept
    coordinator.revoke(kept)
    assert coordinator.get("kept") is None
    coordinator.revoke(kept)


def test_coordinator_tells_watches(coordinator: Coordinator) -> None:
    watch = coordinator.watch("w/")
    while watch.wait(0.0):
        pass
    coordinator.swap("w/a", b"", 0)
    assert watch.wait(20.0)
    while watch.wait(0.0):
        pass
    lease = coordinator.grant(60.0)
    coordinator.swap("w/b", b"", 0, lease)
    assert watch.wait(20.0)
    while watch.wait(0.2):
        pass
    coordinator.revoke(lease)
    assert watch.wait(20.0)
    watch.close()
    watch.close()


def test_coordinator_ends_waits_when_it_is_closed(coordinator: Coordinator) -> None:
    watch = coordinator.watch("z/")
    while watch.wait(0.0):
        pass
    waiting = threading.Thread(target=watch.wait, args=(600.0,))
    waiting.start()
    watch.close()
    waiting.join(20.0)
    assert not waiting.is_alive()
    coordinator.close()
    with pytest.raises(CoordinatorUnavailable):
        coordinator.get("a")


def roster(generation: int, ranks: int, lost: int = -1) -> Roster:
    members = [
        Member(r, r, r + (1 << 20 if r == lost else 0), 1000 + r, r // 8, f"address of {r}")
        for r in range(ranks)
    ]
    return Roster(generation, "job", 0, tuple(members), reason=f"g{generation}")


def test_rosters_are_one_for_each_generation(coordinator: Coordinator) -> None:
    first, second = KeptRosters(coordinator, "j/"), KeptRosters(coordinator, "j/")
    assert first.current() is None
    assert not first.commit(roster(2, 4))
    with ThreadPoolExecutor(8) as pool:
        books = [KeptRosters(coordinator, "j/") for _ in range(8)]
        won = list(pool.map(lambda n: books[n].commit(roster(1, 4 + n)), range(8)))
    assert sum(won) == 1
    assert second.current() == roster(1, 4 + won.index(True))
    assert second.commit(roster(2, 3))
    assert second.commit(roster(2, 3))  # again, as after an answer that was lost
    assert not first.commit(roster(2, 4))
    assert first.current() == roster(2, 3)
    assert not first.commit(roster(3, 3), guards=(("j/leader", 5),))


def test_rosters_of_16384_ranks_write_what_changed(coordinator: Coordinator) -> None:
    book, reader = KeptRosters(coordinator, "big/"), KeptRosters(coordinator, "big/")
    ranks = 16_384
    assert book.commit(roster(1, ranks))
    before = coordinator.entries("big/chunk/")
    assert max(len(entry.value) for entry in before.values()) < 512 << 10
    assert book.commit(roster(2, ranks, lost=700))
    after = coordinator.entries("big/chunk/")
    assert len(after.keys() - before.keys()) == 1
    assert reader.current() == roster(2, ranks, lost=700)
    assert book.commit(roster(3, 8))
    assert book.commit(roster(4, 8))
    assert len(coordinator.entries("big/chunk/")) == 1
    name, entry = next(iter(coordinator.entries("big/chunk/").items()))
    coordinator.swap(name, b"[]", entry.version)
    with pytest.raises(CorruptData, match="digest"):
        reader.current()


@pytest.mark.skipif(bool(NO_ETCD), reason=NO_ETCD or "")
def test_etcd_goes_on_without_one_of_three(tmp_path: Path) -> None:
    servers = etcd_server.EtcdServers(tmp_path, 3)
    coordinator = EtcdCoordinator(EtcdAddress.parse(servers.address), patience_s=20.0)
    try:
        watch = coordinator.watch("a")
        version = coordinator.swap("a", b"1", 0)
        assert version
        servers.kill(0)
        version = coordinator.swap("a", b"2", version)
        assert version
        servers.kill(1)
        brief = EtcdCoordinator(coordinator.address, patience_s=0.5)
        with pytest.raises(CoordinatorUnavailable, match="did not answer"):
            brief.swap("a", b"3", version)
        brief.close()
        servers.start(0)
        entry = coordinator.get("a")
        assert entry is not None
        if entry.value == b"2":  # else the doubtful write came through after all
            version = coordinator.swap("a", b"4", entry.version)
            assert version
        eventually(lambda: watch.wait(0.5))
    finally:
        coordinator.close()
        servers.close()


@pytest.mark.skipif(bool(NO_ETCD), reason=NO_ETCD or "")
def test_etcd_takes_users_with_passwords(tmp_path: Path) -> None:
    servers = etcd_server.EtcdServers(tmp_path)
    try:
        where = servers.address.removeprefix("etcd://")
        root = EtcdCoordinator(EtcdAddress.parse(servers.address))
        root.call("auth/user/add", {"name": "root", "password": "se:c@ret"})
        root.call("auth/user/grant", {"user": "root", "role": "root"})
        root.call("auth/enable", {})
        root.close()
        known = EtcdCoordinator(EtcdAddress.parse(f"etcd://root:se%3Ac%40ret@{where}"))
        assert known.swap("a", b"1", 0)
        known._token = "expired"
        entry = known.get("a")
        assert entry is not None and entry.value == b"1"
        watch = known.watch("a")
        while watch.wait(0.0):
            pass
        known.swap("a", b"2", entry.version)
        assert watch.wait(20.0)
        known.close()
        for address in (f"etcd://root:wrong@{where}", f"etcd://{where}"):
            stranger = EtcdCoordinator(EtcdAddress.parse(address))
            with pytest.raises(CoordinatorUnavailable, match=r"user|authentication"):
                stranger.get("a")
            stranger.close()
    finally:
        servers.close()
