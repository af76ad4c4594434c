"""libfabric: found or said why not, and addresses that are not what they claim to be refused."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_peer import Memory
from memory_process import GENERATION, TRANSPORTS, Process

from hpcore import _core, errors

TCP = next(transport for transport in TRANSPORTS if transport.name == "tcp")
SIZES = [5000, 0, 123_456]


@pytest.fixture
def fabric() -> Any:
    if why := TCP.why_not():
        pytest.skip(why)
    return _core.Fabric(**TCP.options())


@pytest.fixture
def peer() -> Iterator[Process]:
    process = Process()
    process.make(SIZES, 11)
    yield process
    process.end()


def open_memory(fabric: Any, address: bytes, regions: Any, generation: int = GENERATION) -> Any:
    return _core.RemoteMemory.over_fabric(fabric, address, generation, regions)


def test_library_that_is_not_there_is_named() -> None:
    with pytest.raises(errors.NotFound, match=r"/nowhere/libfabric\.so.*HPCORE_LIBFABRIC"):
        _core.Fabric(library="/nowhere/libfabric.so")


def test_library_that_is_another_one_is_refused() -> None:
    with pytest.raises(errors.Unsupported, match="no libfabric"):
        _core.Fabric(library="libc.so.6")


@pytest.mark.parametrize(
    ("version", "message"),
    [("1 << 16 | 14", r"version 1\.14; needed is 1\.17"), ("2 << 16", "lacks")],
)
def test_library_that_is_too_old_or_broken_is_refused(
    tmp_path: Path, version: str, message: str
) -> None:
    compiler = shutil.which("cc") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no compiler to build a false libfabric with")
    source = tmp_path / "old.c"
    source.write_text(f"unsigned fi_version(void) {{ return {version}; }}\n")
    if compiler.endswith("++"):
        source.write_text('extern "C" ' + source.read_text())
    library = tmp_path / "libfabric.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    with pytest.raises(errors.Unsupported, match=message):
        _core.Fabric(library=str(library))


def test_provider_that_is_not_there_is_an_error_not_another_one(fabric: Any) -> None:
    library = TCP.options()["library"]
    with pytest.raises(
        errors.Unsupported, match=r"no provider efa that leads out of this host; it offers .*on lo"
    ):
        _core.Fabric(provider="efa", library=library)
    with pytest.raises(errors.Unsupported, match="no provider tcp on nonesuch0"):
        _core.Fabric(provider="tcp", library=library, domains=["nonesuch0"])


def test_options_that_make_no_sense_are_refused(fabric: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="at least one piece"):
        _core.Fabric(**{**TCP.options(), "piece_bytes": 100, "window_bytes": 99})
    with pytest.raises(errors.InvalidArgument, match="waiting, direct, vectors"):
        _core.Fabric(**{**TCP.options(), "without": ["sense"]})


def test_fabric_says_what_it_got(fabric: Any) -> None:
    assert fabric.domains == ["lo"]
    assert fabric.provider in fabric.describe()
    assert fabric.version in fabric.describe()


def test_address_of_another_generation_or_layout_is_refused(fabric: Any, peer: Process) -> None:
    address = bytes.fromhex(peer.serve(TCP))
    with pytest.raises(errors.MismatchError, match="generation 3, this is generation 4"):
        open_memory(fabric, address, peer.regions, 4)
    with pytest.raises(errors.MismatchError, match="2 regions, the peer 3"):
        open_memory(fabric, address, peer.regions[:2])
    with pytest.raises(errors.MismatchError, match="region 2"):
        open_memory(fabric, address, [*peer.regions[:2], (1, 5)])
    memory = open_memory(fabric, address, peer.regions)
    other = Memory([5000, 1, 123_456], None)
    with pytest.raises(errors.InvalidArgument, match="128457 of 128456"):
        memory.read(0, 128_457, other.regions())
    assert not any(other.content())


def test_bytes_may_be_cut_into_other_regions(fabric: Any, peer: Process) -> None:
    memory = open_memory(fabric, bytes.fromhex(peer.serve(TCP)), peer.regions)
    other = Memory([1, 4998, 60_000, 63_457], None)
    memory.read(0, 128_456, other.regions())
    assert other.content() == Memory(SIZES, 11).content()
    assert other.guards_untouched()


def test_address_that_is_damaged_anywhere_is_refused(fabric: Any, peer: Process) -> None:
    address = bytes.fromhex(peer.serve(TCP))
    for size in range(0, len(address), 7):
        with pytest.raises(errors.CorruptData, match="damaged"):
            open_memory(fabric, address[:size], peer.regions)
    for place in range(len(address) - 4):  # the last four bytes are not used
        broken = bytearray(address)
        broken[place] ^= 0x10
        with pytest.raises(errors.CorruptData, match="damaged"):
            open_memory(fabric, bytes(broken), peer.regions)


def forged(address: bytes, change: Callable[[bytearray], None]) -> bytes:
    """The address after a change, with a check value that fits."""
    body = bytearray(address[:-8])
    change(body)
    # digest128 interleaves four CRC-32Cs; the plain one is computed here, bit by bit.
    crc = 0xFFFFFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return bytes(body) + struct.pack("<Q", crc ^ 0xFFFFFFFF)


def key_places(address: bytes, starts: set[int]) -> list[int]:
    """Where the keys of ranges lie: behind the range's start and size."""
    words = range(0, len(address) - 7)
    return [at + 16 for at in words if struct.unpack_from("<Q", address, at)[0] in starts]


def test_wrong_key_gets_no_data_and_does_not_hurt_the_peer(fabric: Any, peer: Process) -> None:
    address = bytes.fromhex(peer.serve(TCP))
    assert forged(address, lambda body: None) == address
    starts = {start // 4096 * 4096 for start, size in peer.regions if size}
    places = key_places(address, starts)
    assert places

    def change(body: bytearray) -> None:
        for place in places:
            body[place : place + 8] = struct.pack("<Q", 0x1234567)

    mine = Memory(SIZES, None)
    with pytest.raises((errors.PeerDead, errors.MismatchError, errors.DeadlineExceeded)):
        open_memory(fabric, forged(address, change), mine.regions()).read(
            0, sum(SIZES), mine.regions()
        )
    assert not any(mine.content())
    open_memory(fabric, address, mine.regions()).read(0, sum(SIZES), mine.regions())
    assert mine.content() == Memory(SIZES, 11).content()


def test_withdrawn_memory_cannot_be_read_and_can_be_exposed_again(
    fabric: Any, peer: Process
) -> None:
    address = bytes.fromhex(peer.serve(TCP))
    mine = Memory(SIZES, None)
    peer.ask("withdraw")
    with pytest.raises((errors.PeerDead, errors.MismatchError, errors.DeadlineExceeded)):
        open_memory(fabric, address, mine.regions()).read(0, sum(SIZES), mine.regions())
    assert not any(mine.content())
    again = bytes.fromhex(peer.serve(TCP))
    assert again != address
    open_memory(fabric, again, mine.regions()).read(0, sum(SIZES), mine.regions())
    assert mine.content() == Memory(SIZES, 11).content()


def test_exposing_twice_costs_one_registration(fabric: Any, peer: Process) -> None:
    assert peer.serve(TCP) == peer.serve(TCP)


def test_peer_with_another_protocol_is_refused(fabric: Any, peer: Process) -> None:
    address = peer.ask("expose", GENERATION, {**TCP.options(), "provider": "shm", "domains": []})
    with pytest.raises(errors.MismatchError, match="speaks protocol"):
        open_memory(fabric, bytes.fromhex(address), peer.regions)
