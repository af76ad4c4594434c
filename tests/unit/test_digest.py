"""digest128: the same value from all kernels and a plain model; what it must notice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcore import _core
from hpcore.errors import InvalidArgument

CODES = _core.digest_codes()


def crc32c_model(crc: int, data: bytes) -> int:
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def digest_model(data: bytes) -> bytes:
    """The definition, written down once more: word i goes to lane i mod 4, the length to all."""
    padded = data + bytes(-len(data) % 32)
    out = b""
    for lane in range(4):
        crc = 0xFFFFFFFF
        for at in range(8 * lane, len(padded), 32):
            crc = crc32c_model(crc, padded[at : at + 8])
        crc = crc32c_model(crc, len(data).to_bytes(8, "little"))
        out += (crc ^ 0xFFFFFFFF).to_bytes(4, "little")
    return out


# Digests travel between machines and versions: these never change.
GOLDEN = {
    b"": "8ab2288c8ab2288c8ab2288c8ab2288c",
    b"hpcore": "0baba11cc9e215f1c9e215f1c9e215f1",
    bytes(range(256)): "e18da5388f6c75fecc39e8b0a2d83876",
    bytes(1000): "e2e83276e2e83276e2e83276e2e83276",
}


@pytest.mark.parametrize("data", GOLDEN)
def test_digest_is_the_one_we_promised(data: bytes) -> None:
    assert _core.digest128(data).hex() == GOLDEN[data]


@given(st.binary(max_size=300))
def test_digest_equals_its_definition(data: bytes) -> None:
    expected = digest_model(data)
    assert _core.digest128(data) == expected
    for code in CODES:
        assert _core.digest128(data, code) == expected


# Strides of 32 bytes: 32 begin a fold, 8 go into it at a time, 2312 are one segment of folds with
# runs of instructions beside them (digest_x86.cpp).
SEGMENT = 2312 * 32


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("ahead", [0, 13])
@pytest.mark.parametrize(
    "size",
    [
        *(32 * strides + more for strides in (31, 32, 39, 40, 41, 100) for more in (0, 31)),
        *(SEGMENT * count + more for count in (1, 2) for more in (-32, 0, 1, 32, 1024, 1056)),
        3 * SEGMENT + 32 * 2311 + 17,
    ],
)
def test_digest_is_the_same_in_all_codes(code: str, ahead: int, size: int) -> None:
    data = random.Random(size).randbytes(size + ahead)
    assert _core.digest128(memoryview(data)[ahead:], code) == _core.digest128(
        memoryview(data)[ahead:], "portable"
    )


@pytest.mark.parametrize("code", CODES)
def test_each_bit_of_a_segment_counts_in_all_codes(code: str) -> None:
    """CRCs are linear: if one set bit a word gives what portable code gives, all content does."""
    draw = random.Random(3)
    empty = bytes(SEGMENT + 4096)
    for _ in range(200):
        data = bytearray(empty)
        data[draw.randrange(len(data))] = 1 << draw.randrange(8)
        assert _core.digest128(data, code) == _core.digest128(data, "portable")


def test_fastest_code_comes_first_and_others_are_refused() -> None:
    assert CODES[-1] == "portable"
    with pytest.raises(InvalidArgument, match="no digest code"):
        _core.digest128(b"", "md5")


@given(st.binary(min_size=1, max_size=200), st.data())
def test_digest_notices_a_flipped_bit(data: bytes, draw: st.DataObject) -> None:
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    assert _core.digest128(bytes(changed)) != _core.digest128(data)


@given(st.binary(max_size=100))
def test_digest_notices_zeros_put_behind(data: bytes) -> None:
    assert _core.digest128(data + b"\0") != _core.digest128(data)


def test_digest_takes_any_contiguous_buffer() -> None:
    data = bytes(range(256))
    assert (
        _core.digest128(memoryview(data))
        == _core.digest128(bytearray(data))
        == _core.digest128(data)
    )
    with pytest.raises(InvalidArgument, match="contiguous"):
        _core.digest128(memoryview(data)[::2])


@given(
    st.integers(0, 70), st.integers(0, 70), st.one_of(st.integers(0, 200), st.integers(900, 5000))
)
def test_copy_is_digested_wherever_it_lies(before: int, ahead: int, size: int) -> None:
    data = random.Random(size).randbytes(size)
    source = memoryview(bytes(ahead) + data)[ahead:]
    memory = bytearray(b"\xa5" * (before + size + 100))
    expected = _core.digest128(data)
    for code in CODES:
        target = memoryview(memory)[before : before + size]
        target[:] = bytes(size)
        assert _core.copy_digested(target, source, code) == expected
        assert target == data
    assert memory[:before] == b"\xa5" * before
    assert memory[before + size :] == b"\xa5" * 100


def test_copy_refuses_buffers_of_two_sizes() -> None:
    with pytest.raises(InvalidArgument, match="one size"):
        _core.copy_digested(bytearray(5), b"four")
