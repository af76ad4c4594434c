"""Where the vendors' libraries are looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import building
import pytest

from hpcore import devices, errors


def test_wheel_beside_torch_is_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(library) in devices.nccl_places()


def test_environment_names_the_only_library_that_is_looked_at() -> None:
    with pytest.raises(errors.NotFound, match="/nowhere/nccl"):
        devices.open_nccl({"HPCORE_NCCL": "/nowhere/nccl"})
    with pytest.raises(errors.NotFound, match="/nowhere/cuda"):
        devices.open_cuda({"HPCORE_CUDA": "/nowhere/cuda"})
    nccl = devices.open_nccl({"HPCORE_NCCL": building.library("nccl")})
    cuda = devices.open_cuda({"HPCORE_CUDA": building.library("cuda")})
    assert devices.open_cuda({"HPCORE_CUDA": building.library("cuda")}, uuid=cuda.uuid).ordinal == 0
    ids = devices.unique_ids(nccl, [0, 1], [2, 3])
    assert set(ids) == {(0, 2), (0, 3), (1, 2), (1, 3)}
    assert len(set(ids.values())) == 4
