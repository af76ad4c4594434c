"""all_reduce, reduce and reduce_scatter: any dtype, size and split, against numpy in rank order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rank_order import DTYPES, random_array, reduce_in_rank_order, reductions, same, storage
from ranks import run_ranks

from hpcore import _core, errors

LIMIT_S = 30.0
FACTOR = 0.3
AREA_BYTES = 512 << 10  # buffers of 80 KiB and less: large cases take many steps
SETTINGS = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Case:
    dtype: str
    op: str
    sizes: tuple[int, ...]  # of the buffers of a list, or of the ranks' parts
    seed: int


@st.composite
def cases(draw: st.DrawFn, parts: int | None = None) -> Case:
    dtype = draw(st.sampled_from(DTYPES))
    size = st.one_of(st.integers(0, 70), st.integers(0, 5_000), st.integers(0, 150_000))
    count = {"min_size": parts or 1, "max_size": parts or 6}
    sizes = tuple(draw(st.lists(size, **count)))
    return Case(dtype, draw(st.sampled_from(reductions(dtype))), sizes, draw(st.integers(0, 999)))


def contribution(case: Case, rank: int, part: int = 0, size: int | None = None) -> np.ndarray:
    return random_array(
        case.dtype, sum(case.sizes) if size is None else size, case.seed, rank, part
    )


def addresses(array: np.ndarray, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    starts = np.cumsum((0, *sizes[:-1])) * array.itemsize + array.ctypes.data
    return [(int(start), size) for start, size in zip(starts, sizes, strict=True)]


def expected_sum(case: Case, world_size: int, part: int = 0, size: int | None = None) -> np.ndarray:
    parts = [contribution(case, rank, part, size) for rank in range(world_size)]
    return reduce_in_rank_order(case.dtype, case.op, parts, FACTOR)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@SETTINGS
@given(batch=st.lists(cases(), min_size=6, max_size=6))
def test_all_reduce_equals_rank_order(world_size: int, batch: list[Case]) -> None:
    def body(communicator: _core.Communicator) -> None:
        for case in batch:
            mine = contribution(case, communicator.rank)
            buffers = addresses(mine, case.sizes)
            communicator.all_reduce(buffers, case.dtype, case.op, LIMIT_S, FACTOR)
            assert same(case.dtype, mine, expected_sum(case, world_size)), case

    run_ranks(world_size, body, AREA_BYTES)


@pytest.mark.parametrize("world_size", [2, 4])
@SETTINGS
@given(batch=st.lists(cases(), min_size=6, max_size=6))
def test_reduce_writes_root_only(world_size: int, batch: list[Case]) -> None:
    def body(communicator: _core.Communicator) -> None:
        for case in batch:
            root = case.seed % world_size
            mine = contribution(case, communicator.rank)
            buffers = addresses(mine, case.sizes)
            communicator.reduce(buffers, case.dtype, case.op, root, LIMIT_S, FACTOR)
            at_root = communicator.rank == root
            wanted = (
                expected_sum(case, world_size) if at_root else contribution(case, communicator.rank)
            )
            assert same(case.dtype, mine, wanted), case

    run_ranks(world_size, body, AREA_BYTES)


@SETTINGS
@given(batch=st.lists(cases(parts=3), min_size=6, max_size=6), in_place=st.booleans())
def test_reduce_scatter_takes_uneven_parts(batch: list[Case], in_place: bool) -> None:
    def body(communicator: _core.Communicator) -> None:
        rank = communicator.rank
        for case in batch:
            inputs = [contribution(case, rank, p, size) for p, size in enumerate(case.sizes)]
            output = inputs[rank] if in_place else np.empty(case.sizes[rank], storage(case.dtype))
            communicator.reduce_scatter(
                [(part.ctypes.data, part.size) for part in inputs],
                (output.ctypes.data, output.size),
                case.dtype,
                case.op,
                LIMIT_S,
                FACTOR,
            )
            wanted = expected_sum(case, 3, rank, case.sizes[rank])
            assert same(case.dtype, output, wanted), case

    run_ranks(3, body, AREA_BYTES)


def test_all_reduce_takes_thousands_of_small_buffers() -> None:
    sizes = tuple(np.random.default_rng(1).integers(0, 40, 5_000).tolist())
    case = Case("float32", "avg", sizes, 5)

    def body(communicator: _core.Communicator) -> None:
        mine = contribution(case, communicator.rank)
        communicator.all_reduce(addresses(mine, sizes), "float32", "avg", LIMIT_S)
        assert same("float32", mine, expected_sum(case, 2))

    run_ranks(2, body, AREA_BYTES)


@pytest.mark.parametrize(
    ("dtype", "op"), [("bool", "avg"), ("float32", "bor"), ("complex64", "max")]
)
def test_all_reduce_refuses_what_has_no_meaning(dtype: str, op: str) -> None:
    with pytest.raises(errors.Unsupported, match=f"{op} has no meaning for {dtype}"):
        _core.Communicator.rehearsal(2).all_reduce([(0, 0)], dtype, op, LIMIT_S)


def test_all_reduce_refuses_unknown_names() -> None:
    communicator = _core.Communicator.rehearsal(2)
    with pytest.raises(errors.InvalidArgument, match="float31"):
        communicator.all_reduce([(0, 0)], "float31", "sum", LIMIT_S)
    with pytest.raises(errors.InvalidArgument, match="median"):
        communicator.all_reduce([(0, 0)], "float32", "median", LIMIT_S)
