"""The ranks of a communicator as threads of one process, for ThreadSanitizer, which does not see
what processes do to shared memory: see test_communicator_threads.py.

Each generation mixes all operations over the same memory, then ends in one of the ways in which a
generation ends, while the others are still at work. Its threads are joined before the next one
begins: what a reader of an ended generation may still see is undefined, and by design a race."""

from __future__ import annotations

import random
import sys
import threading

import numpy as np

from hpcore import _core, errors

LIMIT_S = 120.0
AREA_BYTES = 256 << 10
SIZES = [0, 1, 700, 9_000, 40_000]  # up to several staging buffers
ENDINGS = ("all", "mismatch", "late", "abort", "revoke")


def at(array: np.ndarray) -> tuple[int, int]:
    return array.ctypes.data, array.size


def numbers(size: int, *seed: int) -> np.ndarray:
    return np.random.default_rng(list(seed)).integers(-1000, 1000, size, np.int64)


def reduce(c: _core.Communicator, size: int, turn: int, root: int) -> None:
    ranks = c.world_size
    total = sum(numbers(size, turn, rank) for rank in range(ranks))
    mine = numbers(size, turn, c.rank)
    c.all_reduce([at(mine)], "int64", "sum", LIMIT_S)
    assert np.array_equal(mine, total)
    mine = numbers(size, turn, c.rank)
    c.reduce([at(mine)], "int64", "sum", root, LIMIT_S)
    assert np.array_equal(mine, total if c.rank == root else numbers(size, turn, c.rank))
    parts = [numbers(size + to, turn, c.rank, to) for to in range(ranks)]
    out = np.zeros(size + c.rank, np.int64)
    c.reduce_scatter([at(part) for part in parts], at(out), "int64", "max", LIMIT_S)
    wanted = np.stack([numbers(size + c.rank, turn, source, c.rank) for source in range(ranks)])
    assert np.array_equal(out, wanted.max(0))


def copy(c: _core.Communicator, size: int, turn: int, root: int) -> None:
    ranks = range(c.world_size)
    values = numbers(size, turn, c.rank)
    c.broadcast([(values.ctypes.data, values.nbytes)], root, LIMIT_S)
    assert np.array_equal(values, numbers(size, turn, root))
    mine = numbers(size + c.rank, turn, c.rank)
    outs = [np.zeros(size + rank, np.int64) for rank in ranks]
    c.all_gather(at(mine), [at(out) for out in outs], "int64", LIMIT_S)
    assert all(np.array_equal(outs[rank], numbers(size + rank, turn, rank)) for rank in ranks)
    at_root = c.rank == root
    outs = [np.zeros(size + rank, np.int64) for rank in ranks]
    c.gather(at(mine), [at(out) for out in outs] if at_root else [], "int64", root, LIMIT_S)
    if at_root:
        assert all(np.array_equal(outs[rank], numbers(size + rank, turn, rank)) for rank in ranks)
    dealt = [numbers(size, turn, to) for to in ranks] if at_root else []
    out = np.zeros(size, np.int64)
    c.scatter([at(part) for part in dealt], at(out), "int64", root, LIMIT_S)
    assert np.array_equal(out, numbers(size, turn, c.rank))
    assert c.all_gather_bytes(b"%d" % c.rank * size, LIMIT_S) == [b"%d" % r * size for r in ranks]


def exchange(c: _core.Communicator, size: int, turn: int, root: int) -> None:
    ranks = range(c.world_size)
    sent = [numbers(size + to, turn, c.rank, to) for to in ranks]
    got = [np.zeros(size + c.rank, np.int64) for _ in ranks]
    c.all_to_all([at(part) for part in sent], [at(part) for part in got], "int64", LIMIT_S)
    for source in ranks:
        assert np.array_equal(got[source], numbers(size + c.rank, turn, source, c.rank))
    c.barrier(LIMIT_S)


def mix(c: _core.Communicator, seed: int, turns: int) -> None:
    plan = random.Random(seed)  # the same in all ranks
    for turn in range(turns):
        plan.choice([reduce, copy, exchange])(
            c, plan.choice(SIZES), seed * 1000 + turn, plan.randrange(c.world_size)
        )


def end(c: _core.Communicator, group: _core.SharedGroup, how: str) -> None:
    values = np.zeros(500, np.int64)
    if how == "mismatch":
        for wrong in (
            lambda: c.all_reduce([(values.ctypes.data, 5 + c.rank)], "int64", "sum", 9.0),
            lambda: c.broadcast([at(values)], c.rank % 2, LIMIT_S),
        ):
            try:
                wrong()
            except errors.MismatchError:
                continue
            raise AssertionError("ranks that disagree were not told")
        mix(c, 77, 2)  # it goes on
        return
    try:
        for turn in range(10_000):
            if c.rank == 0 and turn == 3:
                if how == "revoke":
                    group.revoke(c.generation)
                else:
                    c.abort()
            short = how == "late" and c.rank == 1
            c.all_reduce([at(values)], "int64", "sum", 0.0 if short else 0.2)
    except (errors.RosterChanged, errors.Aborted, errors.DeadlineExceeded):
        return
    raise AssertionError(f"the generation did not end by {how}")


def as_rank(group: _core.SharedGroup, generation: int, rank: int, turns: int, how: str) -> None:
    with _core.Communicator.over_group(group, generation, rank) as communicator:
        mix(communicator, generation, turns)
        if how != "all":
            end(communicator, group, how)


def run_threads(ranks: list[tuple[_core.SharedGroup, int, int, int, str]]) -> None:
    failures: list[BaseException] = []

    def guarded(*arguments: object) -> None:
        try:
            as_rank(*arguments)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=arguments) for arguments in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def main(turns: int) -> None:
    for world_size in (2, 3):
        group = _core.SharedGroup.create(world_size, AREA_BYTES)
        for generation in range(1, 2 * len(ENDINGS) + 1):
            how = ENDINGS[generation % len(ENDINGS)]
            run_threads([(group, generation, rank, turns, how) for rank in range(world_size)])
            group.revoke(generation)


main(int(sys.argv[1]))
