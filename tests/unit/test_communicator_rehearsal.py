"""A rehearsal's operations complete at once on the caller's own data, as the last rank."""

from __future__ import annotations

import numpy as np
import pytest

from hpcore import _core, errors


def address(array: np.ndarray) -> tuple[int, int]:
    return array.ctypes.data, array.size


def test_rehearsal_is_the_last_rank() -> None:
    with _core.Communicator.rehearsal(4) as communicator:
        assert (communicator.rank, communicator.world_size) == (3, 4)


@pytest.mark.parametrize("op", ["sum", "avg", "max"])
def test_rehearsal_reductions_leave_the_data_unscaled(op: str) -> None:
    communicator = _core.Communicator.rehearsal(4)
    data = np.arange(10, dtype=np.float32)
    communicator.all_reduce([address(data)], "float32", op, 1.0)
    communicator.reduce([address(data)], "float32", op, 0, 1.0)
    communicator.broadcast([(data.ctypes.data, data.nbytes)], 0, 1.0)
    communicator.barrier(1.0)
    assert np.array_equal(data, np.arange(10, dtype=np.float32))
    output = np.zeros(3, np.float32)
    parts = [data[3 * rank : 3 * rank + 3] for rank in range(2)] + [data[6:8], data[7:10]]
    communicator.reduce_scatter(
        [address(part) for part in parts], address(output), "float32", op, 1.0
    )
    assert output.tolist() == [7, 8, 9]


def test_rehearsal_gathers_what_the_caller_has() -> None:
    communicator = _core.Communicator.rehearsal(2)
    mine = np.array([1, 2], np.int32)
    outputs = np.zeros((2, 2), np.int32)
    communicator.all_gather(address(mine), [address(row) for row in outputs], "int32", 1.0)
    assert outputs.tolist() == [[1, 2], [1, 2]]
    assert communicator.all_gather_bytes(b"abc", 1.0) == [b"abc", b"abc"]
    outputs[:] = 0
    inputs = np.array([[3, 4], [5, 6]], np.int32)
    communicator.all_to_all(
        [address(row) for row in inputs], [address(row) for row in outputs], "int32", 1.0
    )
    assert outputs.tolist() == [[5, 6], [5, 6]]


def test_rehearsal_ends_with_close() -> None:
    communicator = _core.Communicator.rehearsal(2)
    communicator.close()
    communicator.close()
    with pytest.raises(errors.Aborted):
        communicator.barrier(1.0)
