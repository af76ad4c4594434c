"""State over c10d's send and receive: right, or a clear error that names the rank."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch
RANK = Path(__file__).with_name("collective_rank.py")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """What the receiver says, given the number of ranks and what is to go wrong."""
    ranks: list[subprocess.Popen[str]] = []

    def start(world: int, **plan: Any) -> dict[str, Any]:
        command = [sys.executable, str(RANK), str(world), str(tmp_path / "port"), json.dumps(plan)]
        ranks.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        said, _ = ranks[0].communicate(timeout=60)
        return json.loads(said)  # type: ignore[no-any-return]

    yield start
    for rank in ranks:
        rank.kill()
        rank.wait()
        if rank.stdout is not None:
            rank.stdout.close()


def test_state_comes_from_all_sources_and_is_right(run: Callable[..., dict[str, Any]]) -> None:
    told = run(3)
    assert told["right"], told
    assert told["refetched"] == 0
    assert told["notes"] == []
    assert set(told["bytes_by_source"]) == {"1", "2"}
    assert sum(told["bytes_by_source"].values()) == told["bytes"]


def test_chunk_that_was_flipped_is_fetched_again_and_counted(
    run: Callable[..., dict[str, Any]],
) -> None:
    told = run(2, flips=2)
    assert told["right"], told
    assert told["refetched"] == 2


def test_chunk_that_is_never_right_is_an_error(run: Callable[..., dict[str, Any]]) -> None:
    told = run(2, flips=99)
    assert told["error"] == "CorruptData"
    assert "chunk 1 of" in told["message"] and "from rank 1" in told["message"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_source_that_is_lost_leaves_its_chunks_to_the_other(
    run: Callable[..., dict[str, Any]], number: int
) -> None:
    told = run(3, dies=1, signal=number)
    assert told["right"], told
    assert "rank 1 was lost" in told["notes"][0]


def test_last_source_that_is_lost_is_named(run: Callable[..., dict[str, Any]]) -> None:
    told = run(2, dies=1, signal=signal.SIGKILL)
    assert told["error"] == "PeerDead", told
    assert "no source is left: rank 1 was lost" in told["message"]


def test_source_of_another_generation_is_refused(run: Callable[..., dict[str, Any]]) -> None:
    told = run(2, generation=4, answer_limit_s=0.5)
    assert told["error"] == "MismatchError"
    assert "no state of generation 4" in told["message"] and "generation 3" in told["message"]


def test_layout_that_differs_is_named(run: Callable[..., dict[str, Any]]) -> None:
    told = run(2, layout=True)
    assert told["error"] == "MismatchError"
    assert "tensor 2 has 308 bytes in rank 1, 100 in this process" in told["message"]


def test_replica_that_has_drifted_is_named(run: Callable[..., dict[str, Any]]) -> None:
    told = run(3, drifted=2)
    assert told["error"] == "CorruptData"
    assert "ranks 1 and 2 hold different bytes in chunk 0" in told["message"]
