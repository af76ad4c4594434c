"""State in device memory, source to receiver, over loopback doubles of CUDA and NCCL: right, or the
next way, said aloud, or a clear error; never wrong bytes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import building
import pytest
from memory_peer import Memory
from memory_process import Process

from hpcore import _core

MIB = 1 << 20
GENERATION = 3
SIZES = [5 * MIB + 3, 0, *([4096] * 40), 7, 3 * MIB]


class Ring:
    """One receiver (slot 0) and sources, each a process."""

    def __init__(self, sources: int) -> None:
        self.segment = _core.NodeSegment.create(sources + 1, 1 << 16, 1 << 20)
        self.peers = []
        for slot in range(sources + 1):
            self.segment.prepare_slot(slot, slot + 1)
            self.peers.append(Process(self.segment, slot))
        self.nccl = building.library("nccl")
        self.library = _core.NcclLibrary(self.nccl)  # lives as long as its unique ids

    def start(self, sizes: list[int] = SIZES, seeds: dict[int, int] | None = None) -> None:
        for slot, peer in enumerate(self.peers):
            peer.make(sizes, (seeds or {}).get(slot, 11) if slot else 99)
            peer.ask("to_device", building.library("cuda"))

    def offers(self, generation: int = GENERATION) -> list[dict[str, Any]]:
        found = []
        for index, peer in enumerate(self.peers[1:]):
            unique_id = self.library.unique_id().hex()
            count = len(self.peers) - 1
            offer = peer.ask("offer_device", generation, index, count, self.nccl, [unique_id])
            found.append({**offer, "id": unique_id})
        return found

    def publish(self) -> None:
        for peer in self.peers[1:]:
            peer.send("publish")
        for peer in self.peers[1:]:
            peer.answer()

    def pull(self, offers: list[dict[str, Any]], timeout_s: float = 20.0) -> dict[str, Any]:
        """The stats, or {"error", "message"}."""
        self.peers[0].send("pull_device", GENERATION, offers, self.nccl, timeout_s)
        answer = self.peers[0].answer()
        return answer.get("ok", answer)  # type: ignore[no-any-return]

    def right(self) -> bool:
        right = _core.digest128(Memory(SIZES, 11).content()).hex()
        return bool(self.peers[0].ask("digest") == right)

    def end(self) -> None:
        for peer in self.peers:
            peer.end()
        self.segment.close()


@pytest.fixture
def ring() -> Iterator[Callable[[int], Ring]]:
    made: list[Ring] = []

    def make(sources: int) -> Ring:
        made.append(Ring(sources))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.end()


def by_nccl(offers: list[dict[str, Any]], elsewhere: bool = False) -> list[dict[str, Any]]:
    """Without CUDA IPC; elsewhere: as if the sources were on other hosts."""
    return [{**offer, "ipc": "", "pid": 0 if elsewhere else offer["pid"]} for offer in offers]


WAYS = {
    "cuda-ipc": lambda offers: offers,
    "nccl": by_nccl,
    "nccl-elsewhere": lambda offers: by_nccl(offers, True),
}


@pytest.mark.parametrize("way", WAYS)
def test_state_comes_from_two_sources(ring: Callable[[int], Ring], way: str) -> None:
    jobs = ring(2)
    offers = WAYS[way](jobs.offers())
    jobs.publish()
    told = jobs.pull(offers)
    assert told["method"] == way.removesuffix("-elsewhere")
    assert told["refetched"] == 0 and told["notes"] == ""
    assert all(told["bytes_by_source"])
    assert jobs.right()


@pytest.mark.parametrize(
    ("way", "double", "fault", "slot"),
    [("cuda-ipc", "cuda", "flip_copy", 0), ("nccl", "nccl", "flip_send", 1)],
)
def test_chunk_flipped_on_the_way_is_fetched_again_and_counted(
    ring: Callable[[int], Ring], way: str, double: str, fault: str, slot: int
) -> None:
    jobs = ring(2)
    offers = WAYS[way](jobs.offers())
    jobs.publish()
    jobs.peers[slot].fault(double, fault, 1)
    told = jobs.pull(offers)
    assert told["refetched"] == 1
    assert jobs.right()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("way", ["nccl", "nccl-elsewhere"])
def test_source_lost_in_mid_transfer_leaves_its_part_to_the_other(
    ring: Callable[[int], Ring], way: str, number: int
) -> None:
    jobs = ring(2)
    offers = WAYS[way](jobs.offers())
    jobs.publish()
    jobs.peers[1].fault("nccl", "stall_send", 1)  # it is asked, and never done
    jobs.peers[0].send("pull_device", GENERATION, offers, jobs.nccl, 20.0)
    os.kill(jobs.peers[1].process.pid, number)
    answer = jobs.peers[0].answer()
    assert "ok" in answer, answer
    assert "slot 1: " in answer["ok"]["notes"]
    assert jobs.right()


def test_last_source_that_stops_is_an_error(ring: Callable[[int], Ring]) -> None:
    jobs = ring(1)
    offers = by_nccl(jobs.offers())
    jobs.publish()
    jobs.peers[1].fault("nccl", "stall_send", 1)
    told = jobs.pull(offers)
    assert told["error"] in ("DeadlineExceeded", "PeerDead"), told
    assert "slot 1" in told["message"] or "0.5" in told["message"]


def test_ipc_that_is_refused_is_said_and_nccl_is_taken(ring: Callable[[int], Ring]) -> None:
    jobs = ring(2)
    jobs.peers[0].fault("cuda", "uuid", 7)  # the receiver does not see the sources' device
    offers = jobs.offers()
    jobs.publish()
    told = jobs.pull(offers)
    assert told["method"] == "nccl"
    assert "CUDA_VISIBLE_DEVICES" in told["notes"] and "NCCL instead" in told["notes"]
    assert jobs.right()


def test_memory_without_handles_is_not_offered_by_ipc(ring: Callable[[int], Ring]) -> None:
    jobs = ring(1)
    jobs.peers[1].fault("cuda", "ipc_refused", 1)
    offers = jobs.offers()
    jobs.publish()
    assert offers[0]["ipc"] == "" and "expandable_segments" in offers[0]["why_not"]
    assert jobs.pull(offers)["method"] == "nccl"
    assert jobs.right()


@pytest.mark.parametrize("fault", ["init_hangs", "init_error", "async_error"])
def test_source_whose_nccl_fails_is_left_out(ring: Callable[[int], Ring], fault: str) -> None:
    jobs = ring(2)
    offers = by_nccl(jobs.offers())
    jobs.publish()
    jobs.peers[1].fault("nccl", fault, 1)
    told = jobs.pull(offers)
    assert "slot 1: " in told["notes"], told
    assert jobs.right()


def test_group_that_takes_its_time_is_waited_for(ring: Callable[[int], Ring]) -> None:
    jobs = ring(1)
    offers = by_nccl(jobs.offers())
    jobs.publish()
    for peer in jobs.peers:
        peer.fault("nccl", "group_in_progress", 3)
    assert jobs.pull(offers)["notes"] == ""
    assert jobs.right()


@pytest.mark.parametrize("way", ["cuda-ipc", "nccl"])
def test_another_generation_is_refused(ring: Callable[[int], Ring], way: str) -> None:
    jobs = ring(1)
    told = jobs.pull(WAYS[way](jobs.offers(GENERATION + 1)))
    assert told["error"] == "MismatchError"
    assert "generation 4, this is generation 3" in told["message"]


def test_unique_id_of_another_link_is_refused(ring: Callable[[int], Ring]) -> None:
    jobs = ring(1)
    offers = by_nccl(jobs.offers())
    jobs.publish()
    offers[0]["id"] = jobs.library.unique_id().hex()
    told = jobs.pull(offers)
    assert told["error"] == "MismatchError" and "none of the 1 of generation 3" in told["message"]


def test_error_of_the_device_is_no_data(ring: Callable[[int], Ring]) -> None:
    jobs = ring(1)
    offers = jobs.offers()
    jobs.publish()
    jobs.peers[0].fault("cuda", "copy_error", 3)
    told = jobs.pull(offers)
    assert "error" in told and "unspecified launch failure" in told["message"], told


def test_receiver_that_is_killed_leaves_its_source_whole(ring: Callable[[int], Ring]) -> None:
    jobs = ring(1)
    offers = by_nccl(jobs.offers())
    jobs.publish()
    source = jobs.peers[1]
    source.fault("nccl", "stall_send", 1)  # so that a send is under way when it happens
    jobs.peers[0].send("pull_device", GENERATION, offers, jobs.nccl, 20.0)
    jobs.peers[0].kill()
    source.ask("withdraw_generation", GENERATION)
    assert source.ask("digest") == _core.digest128(Memory(SIZES, 11).content()).hex()
    source.ask("close")
    source.ask("close")
