"""libnccl and libcuda: found or said why not, gated by version, and taken whole or not at all."""

from __future__ import annotations

import glob
import os
import site
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "doubles"))
import building

from hpcore import _core, errors


@pytest.fixture
def nccl() -> Any:
    return _core.NcclLibrary(building.library("nccl"))


@pytest.fixture
def no_faults() -> Iterator[None]:
    yield
    for name in ("devices", "version", "uuid"):
        building.fault("cuda", name, 0)
    building.fault("nccl", "version", 0)


def test_nccl_that_is_not_there_is_named() -> None:
    with pytest.raises(errors.NotFound, match=r"/nowhere/libnccl\.so.*HPCORE_NCCL"):
        _core.NcclLibrary("/nowhere/libnccl.so")


def test_nccl_names_every_place_that_was_tried() -> None:
    if _system_nccl():
        pytest.skip("this machine has an NCCL in its loader's places")
    with pytest.raises(errors.NotFound, match=r"/wheel/libnccl\.so\.2: .*; libnccl\.so\.2: "):
        _core.NcclLibrary(known=["/wheel/libnccl.so.2"])


def _system_nccl() -> bool:
    try:
        _core.NcclLibrary()
    except errors.NotFound:
        return False
    return True


def test_library_that_is_another_one_is_refused() -> None:
    with pytest.raises(errors.Unsupported, match="no NCCL: it has no ncclGetVersion"):
        _core.NcclLibrary("libc.so.6")
    with pytest.raises(errors.Unsupported, match="no CUDA driver: it has no cuDriverGetVersion"):
        _core.CudaDevice(library="libc.so.6")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (2708, r"version 2\.7\.8; needed is 2\.14\.0 or later"),
        (21305, r"version 2\.13\.5; needed is 2\.14\.0 or later"),
        (21400, r"NCCL 2\.14\.0 in .*libtiny\.so lacks ncclGetUniqueId, ncclCommInitRankConfig"),
    ],
)
def test_nccl_that_is_too_old_or_broken_is_refused(
    tmp_path: Path, version: int, message: str
) -> None:
    code = f"int ncclGetVersion(int* v) {{ *v = {version}; return 0; }}"
    with pytest.raises(errors.Unsupported, match=message):
        _core.NcclLibrary(building.tiny_library(tmp_path, code))


def test_nccl_says_what_it_is(nccl: Any) -> None:
    assert nccl.path == building.library("nccl")
    assert nccl.version == "2.29.7"
    assert nccl.offers == ["scalable", "shrink", "grow"]


def test_unique_ids_are_unique(nccl: Any) -> None:
    ids = {nccl.unique_id() for _ in range(5)}
    assert len(ids) == 5
    assert {len(unique_id) for unique_id in ids} == {128}


def _real_nccl() -> list[str]:
    """Wheels' and those that HPCORE_NCCL names."""
    asked = [os.environ["HPCORE_NCCL"]] if "HPCORE_NCCL" in os.environ else []
    roots = [*site.getsitepackages(), *sys.path]
    found = [glob.glob(f"{root}/nvidia/nccl/lib/libnccl.so.2") for root in roots]
    return asked + [path for paths in found for path in paths]


def test_real_nccl_loads_without_a_gpu_and_makes_unique_ids() -> None:
    places = _real_nccl()
    if not places:
        pytest.skip("no nvidia-nccl wheel here; name a libnccl.so.2 with HPCORE_NCCL")
    library = _core.NcclLibrary(places[0])
    assert tuple(int(part) for part in library.version.split(".")) >= (2, 14, 0)
    assert library.unique_id() != library.unique_id()


def test_cuda_that_is_not_there_is_named() -> None:
    with pytest.raises(errors.NotFound, match=r"/nowhere/libcuda\.so.*HPCORE_CUDA"):
        _core.CudaDevice(library="/nowhere/libcuda.so")


@pytest.mark.parametrize(
    ("version", "message"),
    [(11030, r"version 11\.3; needed is 11\.4 or later"), (12080, "12.8 in .* lacks cuInit, ")],
)
def test_cuda_that_is_too_old_or_broken_is_refused(
    tmp_path: Path, version: int, message: str
) -> None:
    code = f"int cuDriverGetVersion(int* v) {{ *v = {version}; return 0; }}"
    with pytest.raises(errors.Unsupported, match=message):
        _core.CudaDevice(library=building.tiny_library(tmp_path, code))


def test_cuda_without_a_device_is_said(no_faults: None) -> None:
    library = building.library("cuda")
    _core.CudaDevice(library=library)
    building.fault("cuda", "devices", -1)
    with pytest.raises(errors.Unsupported, match="no CUDA-capable device"):
        _core.CudaDevice(library=library)


def test_cuda_device_is_found_by_uuid(no_faults: None) -> None:
    library = building.library("cuda")
    building.fault("cuda", "devices", 3)
    third = _core.CudaDevice(library=library, ordinal=2)
    assert _core.CudaDevice(library=library, uuid=third.uuid).ordinal == 2
    assert _core.CudaDevice(library=library, uuid=third.uuid.removeprefix("GPU-")).ordinal == 2
    with pytest.raises(errors.NotFound, match="CUDA_VISIBLE_DEVICES"):
        _core.CudaDevice(library=library, uuid="GPU-none")
    with pytest.raises(errors.NotFound, match="no CUDA device 3: 3 are visible"):
        _core.CudaDevice(library=library, ordinal=3)


def test_cuda_device_knows_its_memory() -> None:
    device = _core.CudaDevice(library=building.library("cuda"))
    buffer = _core.CudaBuffer(device, 100)
    assert device.holds(buffer.address)
    assert not device.holds(id(device))
    with pytest.raises(errors.SystemCallError, match="allocating 0 bytes"):
        _core.CudaBuffer(device, 0)
