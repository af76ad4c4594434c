"""Every operation of the hpcore backend, against what it must give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import run_ranks

pytestmark = pytest.mark.torch

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
]
SIZES = [0, 1, 1000, 300_001]


def values(rank: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Small whole numbers: sums and products of them are exact in every dtype."""
    base = torch.arange(size) * (rank + 3) % 3
    if dtype == torch.bool:
        return base % 2 == 0
    return base.to(dtype)


def inputs(size: int, dtype: torch.dtype, ranks: int) -> list[torch.Tensor]:
    return [values(rank, size, dtype) for rank in range(ranks)]


def reduced(name: str, size: int, dtype: torch.dtype, ranks: int) -> torch.Tensor:
    stack = torch.stack(inputs(size, dtype, ranks))
    if dtype == torch.bool:
        whole = stack.any(0) if name in ("SUM", "MAX", "BOR") else stack.all(0)
        return whole if name != "BXOR" else stack.sum(0) % 2 == 1
    wide_dtype = torch.float64 if dtype.is_floating_point else torch.int64
    wide = stack.to(torch.complex128 if dtype.is_complex else wide_dtype)
    match name:
        case "SUM":
            result = wide.sum(0)
        case "PRODUCT":
            result = wide.prod(0)
        case "MIN":
            result = wide.amin(0)
        case "MAX":
            result = wide.amax(0)
        case "AVG":
            result = wide.sum(0) / ranks if wide.dtype != torch.int64 else wide.sum(0) // ranks
        case "BAND":
            result = wide[0]
            for row in wide[1:]:
                result = result & row
        case "BOR":
            result = wide[0]
            for row in wide[1:]:
                result = result | row
        case "BXOR":
            result = wide[0]
            for row in wide[1:]:
                result = result ^ row
        case _:
            raise AssertionError(name)
    return result.to(dtype)


def allowed(name: str, dtype: torch.dtype) -> bool:
    if name in ("BAND", "BOR", "BXOR"):
        return not dtype.is_floating_point and not dtype.is_complex
    if dtype.is_complex:
        return name in ("SUM", "AVG")  # what torch lets through
    return dtype != torch.bool or name != "AVG"


def check_same(got: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    if got.dtype in (torch.float16, torch.bfloat16):
        torch.testing.assert_close(got, expected, msg=what)
    else:
        assert torch.equal(got, expected), what


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_c10d_reductions_of_every_dtype(ranks: int) -> None:
    def work(rank: int) -> None:
        for dtype in DTYPES:
            for name in ("SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"):
                if not allowed(name, dtype):
                    continue
                op = getattr(dist.ReduceOp, name)
                for size in SIZES if name == "SUM" else [1000]:
                    what = f"{name} {dtype} {size}"
                    expected = reduced(name, size, dtype, ranks)
                    tensor = values(rank, size, dtype)
                    dist.all_reduce(tensor, op)
                    check_same(tensor, expected, "all_reduce " + what)
                    tensor = values(rank, size, dtype)
                    dist.reduce(tensor, ranks - 1, op)
                    check_same(
                        tensor,
                        expected if rank == ranks - 1 else values(rank, size, dtype),
                        "reduce " + what,
                    )

    run_ranks(ranks, work)


@pytest.mark.parametrize("ranks", [1, 3])
def test_c10d_reduce_scatters(ranks: int) -> None:
    def work(rank: int) -> None:
        for dtype in (torch.float32, torch.bfloat16, torch.int64):
            for each in (0, 1, 70_001):
                whole = values(rank, each * ranks, dtype)
                expected = reduced("SUM", each * ranks, dtype, ranks)
                expected = expected[each * rank : each * (rank + 1)]
                out = torch.empty(each, dtype=dtype)
                dist.reduce_scatter_tensor(out, whole)
                check_same(out, expected, f"reduce_scatter_tensor {dtype} {each}")
                out = torch.empty(each, dtype=dtype)
                dist.reduce_scatter(out, list(whole.chunk(ranks)) if each else [whole] * ranks)
                check_same(out, expected, f"reduce_scatter {dtype} {each}")
        sizes = [5 * (r + 1) for r in range(ranks)]
        parts = [torch.full((n,), float(rank + n)) for n in sizes]
        out = torch.empty(sizes[rank])
        dist.reduce_scatter(out, parts)
        assert out.tolist() == [float(sum(range(ranks)) + ranks * sizes[rank])] * sizes[rank]

    run_ranks(ranks, work)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_c10d_movements_of_every_dtype(ranks: int) -> None:
    def work(rank: int) -> None:
        for dtype in [*DTYPES, torch.float8_e4m3fn, torch.complex128, torch.uint16]:
            for size in SIZES:
                what = f"{dtype} {size}"
                every = [values(r, size, torch.int32).to(dtype) for r in range(ranks)]
                same = lambda a, b: torch.equal(a.view(torch.uint8), b.view(torch.uint8))  # noqa: E731
                tensor = every[rank].clone()
                dist.broadcast(tensor, ranks - 1)
                assert same(tensor, every[ranks - 1]), "broadcast " + what
                out = [torch.empty_like(every[0]) for _ in range(ranks)]
                dist.all_gather(out, every[rank])
                assert all(map(same, out, every)), "all_gather " + what
                flat = torch.empty(size * ranks, dtype=dtype)
                dist.all_gather_into_tensor(flat, every[rank])
                assert same(flat, torch.cat([e.view(torch.uint8) for e in every])), "into " + what
                out = [torch.empty_like(every[0]) for _ in range(ranks)]
                dist.gather(every[rank], out if rank == 0 else None, 0)
                assert rank != 0 or all(map(same, out, every)), "gather " + what
                one = torch.empty_like(every[0])
                dist.scatter(one, every if rank == ranks - 1 else None, ranks - 1)
                assert same(one, every[rank]), "scatter " + what

    run_ranks(ranks, work)


@pytest.mark.parametrize("ranks", [2, 3])
def test_c10d_all_to_all(ranks: int) -> None:
    def work(rank: int) -> None:
        sent = torch.arange(ranks * 4).reshape(ranks * 2, 2) + 100 * rank
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent)
        expected = torch.cat(
            [
                torch.arange(ranks * 4).reshape(ranks * 2, 2)[2 * rank : 2 * rank + 2] + 100 * r
                for r in range(ranks)
            ]
        )
        assert torch.equal(got, expected)
        # Rank s sends s + r + 1 rows to rank r.
        rows_out = [rank + r + 1 for r in range(ranks)]
        rows_in = [s + rank + 1 for s in range(ranks)]
        sent = torch.cat([torch.full((n, 3), float(10 * rank + r)) for r, n in enumerate(rows_out)])
        got = torch.empty(sum(rows_in), 3)
        dist.all_to_all_single(got, sent, rows_in, rows_out)
        expected = torch.cat(
            [torch.full((n, 3), float(10 * s + rank)) for s, n in enumerate(rows_in)]
        )
        assert torch.equal(got, expected)
        outs = [torch.empty(s + 1) for s in range(ranks)]
        dist.all_to_all(outs, [torch.full((rank + 1,), float(rank * 10 + r)) for r in range(ranks)])
        assert [o.tolist() for o in outs] == [
            [float(s * 10 + rank)] * (s + 1) for s in range(ranks)
        ]

    run_ranks(ranks, work)


def test_c10d_takes_tensors_that_are_not_contiguous() -> None:
    def work(rank: int) -> None:
        strided = torch.arange(24.0).reshape(4, 6).t()[::2]
        tensor = strided.clone(memory_format=torch.preserve_format)
        big = torch.zeros(6, 8)
        view = big[::2, 1:5]
        view.copy_(strided)
        dist.all_reduce(view)
        assert torch.equal(view, strided * 2)
        assert big[1::2].abs().sum() == 0
        view = torch.zeros(6, 8)[::2, 1:5]
        source = tensor + rank
        dist.broadcast(source if rank == 0 else view, 0)
        assert torch.equal(source if rank == 0 else view, tensor)
        outs = [torch.empty(4, 3).t() for _ in range(2)]
        dist.all_gather(outs, tensor + rank)
        assert torch.equal(outs[1], tensor + 1)
        if rank == 0:
            dist.send(tensor, 1)
        else:
            view = torch.zeros(6, 8)[::2, 1:5]
            dist.recv(view, 0)
            assert torch.equal(view, tensor)
        parameter = torch.nn.Parameter(torch.ones(3))
        with torch.no_grad():
            dist.all_reduce(parameter)
        assert parameter.tolist() == [2.0] * 3
        with torch.inference_mode():
            inference = torch.ones(4, 4)[:, ::2]
            dist.all_reduce(inference)
            assert inference.sum() == 16

    run_ranks(2, work)


def test_c10d_asynchronous_operations_keep_their_order() -> None:
    def work(rank: int) -> None:
        tensors = [torch.full((1000 * (i % 5) + 1,), float(i + rank)) for i in range(50)]
        works = [dist.all_reduce(t, async_op=True) for t in tensors]
        dist.barrier()
        assert all(work.is_completed() for work in works)
        for i, tensor in enumerate(tensors):
            assert (tensor == 2 * i + 1).all()
        for handle in reversed(works):
            assert handle.wait()
            assert handle.is_success()
        handle = dist.all_reduce(tensors[0], async_op=True)
        doubled = handle.get_future().then(lambda future: future.value()[0] * 2)
        assert doubled.wait()[0].item() == 4 * 1.0
        assert handle.get_future().done()
        handle = dist.broadcast(tensors[1], 0, async_op=True)
        handle.wait()
        assert torch.equal(handle.result()[0], tensors[1])
        group: Any = dist.group.WORLD
        own = group._get_backend(torch.device("cpu"))
        before = own._get_sequence_number_for_group()
        dist.barrier()
        assert own._get_sequence_number_for_group() == before + 1

    run_ranks(2, work)


def test_c10d_coalesced_operations() -> None:
    def work(rank: int) -> None:
        tensors = [torch.full((n,), float(rank + n)) for n in (1, 7, 5000)]
        dist.all_reduce_coalesced(tensors)
        assert [t[0].item() for t in tensors] == [2 * n + 1.0 for n in (1, 7, 5000)]
        with dist._coalescing_manager(async_ops=True) as manager:
            many = [torch.ones(i + 1) for i in range(4)]
            for tensor in many:
                dist.all_reduce(tensor)
        manager.wait()
        assert all((tensor == 2).all() for tensor in many)
        outs = [torch.empty(2 * n) for n in (2, 3)]
        with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as manager:
            for out, n in zip(outs, (2, 3), strict=True):
                dist.all_gather_into_tensor(out, torch.full((n,), float(rank)))
        manager.wait()
        assert [out.sum().item() for out in outs] == [2.0, 3.0]
        outs = [torch.empty(n) for n in (2, 3)]
        with dist._coalescing_manager(async_ops=True) as manager:
            for out, n in zip(outs, (2, 3), strict=True):
                dist.reduce_scatter_tensor(out, torch.arange(2.0 * n) + rank)
        manager.wait()
        assert [o.tolist() for o in outs] == [
            (2 * torch.arange(2.0 * n)[n * rank : n * rank + n] + 1).tolist() for n in (2, 3)
        ]
        lists = [[torch.empty(2), torch.empty(3)] for _ in range(2)]
        dist.all_gather_coalesced(
            lists, [torch.full((2,), float(rank)), torch.full((3,), rank + 5.0)]
        )
        assert [[t[0].item() for t in inner] for inner in lists] == [[0.0, 5.0], [1.0, 6.0]]

    run_ranks(2, work)
