"""What is told of operations in flight: in the error of a timeout, in a dump, on request."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from c10d_ranks import run_ranks

from hpcore import errors
from hpcore.distributed import flight_record

pytestmark = pytest.mark.torch


def test_flight_timeout_tells_what_is_in_flight_and_dumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", str(tmp_path / "flight_"))

    def work(rank: int) -> tuple[str, float] | None:
        group = dist.new_group(timeout=timedelta(seconds=0.5))
        other = dist.new_group()
        tensor = torch.ones(3, 2)
        dist.all_reduce(tensor, group=group)
        if rank == 1:
            dist.recv(torch.empty(1), 0)  # until the other has seen its timeout
            return None
        late = dist.irecv(torch.empty(7, dtype=torch.int64), 1, group=other)
        with pytest.raises(errors.DeadlineExceeded) as raised:
            dist.all_reduce(tensor, group=group)
        dist.send(torch.empty(1), 1)
        assert not late.is_completed()
        return str(raised.value), tensor.sum().item()

    told = run_ranks(2, work)[0]
    assert told is not None and "hpcore:all_reduce #1 of group" in told[0], told
    assert "hpcore:recv #0 of group" in told[0] and "Long[7], running for" in told[0], told
    assert str(tmp_path / "flight_0") in told[0]
    found = json.loads((tmp_path / "flight_0").read_text())
    last = [entry for entry in found["entries"] if entry["profiling_name"] == "hpcore:all_reduce"][
        -1
    ]
    assert last["state"] in ("started", "failed") and last["input_sizes"] == [[3, 2]]
    assert last["timeout_ms"] == 500 and last["collective_seq_id"] == 1
    assert not (tmp_path / "flight_1").exists()  # rank 1 had no timeout


def test_flight_record_is_what_torch_writes() -> None:
    """The same keys as torch's own recorder, so that its analyser reads it."""

    def work(rank: int) -> dict[str, Any]:
        dist.all_reduce(torch.ones(4))
        dist.barrier()
        return flight_record()

    record = run_ranks(2, work)[1]
    assert set(record) >= {"version", "pg_config", "pg_status", "entries"}
    assert record["pg_config"]["0"]["ranks"] in ("[0, 1]", "[]")
    names = [entry["profiling_name"] for entry in record["entries"]]
    assert names == ["hpcore:all_reduce", "hpcore:barrier"]
    first = record["entries"][0]
    assert first["state"] == "completed" and first["input_dtypes"] == ["Float"]
    assert {"record_id", "pg_id", "process_group", "collective_seq_id", "p2p_seq_id", "op_id",
            "time_created_ns", "duration_ms", "input_sizes", "output_sizes", "output_dtypes",
            "timeout_ms", "is_p2p", "retired"} <= set(first)  # fmt: skip


def test_flight_record_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "5")

    def work(rank: int) -> list[int]:
        group = dist.new_group()
        for _ in range(12):
            dist.barrier(group=group)
        return [entry["record_id"] for entry in flight_record()["entries"]]

    assert run_ranks(2, work) == [[7, 8, 9, 10, 11]] * 2
