"""docs/dataset-format.md is enough to read a file: a reader in plain Python, written from it alone.

Nothing of hpcore is used to read here. It is slow, and checks everything that the page promises.
"""

import json
import math
import struct
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcore import dataset
from hpcore.dataset import Field
from hpcore.errors import CorruptData, Unsupported

FORMATS = dict(enumerate(["B", "H", "I", "Q", "b", "h", "i", "q", "e", "bf", "f", "d", "?"], 1))
MIB = 1 << 20


def crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = crc_table()


def crc(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def digest(stream: bytes) -> bytes:
    padded = stream + bytes(-len(stream) % 32) + struct.pack("<Q", len(stream)) * 4
    words = [padded[i : i + 8] for i in range(0, len(padded), 8)]
    return struct.pack("<4I", *(crc(b"".join(words[lane::4])) for lane in range(4)))


class PlainFile:
    """A whole .hpd file in memory, checked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        head = data[:4096]
        assert head[:8] == b"HPDATA\r\n"
        assert struct.unpack_from("<I", head, 4092)[0] == crc(head[:4092])
        assert struct.unpack_from("<II", head, 8) == (2, 4096)
        assert struct.unpack_from("<I", head, 148)[0] == 0x01020304
        assert struct.unpack_from("<QQII", head, 48) == (0, 0, 262144, self.u32(68))
        (
            self.table_at,
            self.metadata_at,
            metadata_bytes,
            self.begin,
            self.blocks,
            self.blocks_at,
            self.pages_at,
            size,
        ) = struct.unpack_from("<8Q", head, 72)
        assert (self.table_at, self.begin) == (4096, 2 * MIB)
        assert self.metadata_at == 4096 + 256 * self.u32(68)
        assert size == len(data)
        assert self.pages_at == self.blocks_at + 4 * self.blocks
        assert self.blocks == math.ceil((self.blocks_at - self.begin) / 262144)
        metadata = data[self.metadata_at : self.metadata_at + metadata_bytes]
        table = data[self.table_at : self.metadata_at]
        assert self.u32(136) == crc(table)
        assert self.u32(140) == crc(metadata)
        assert self.u32(144) == crc(data[self.pages_at :])
        assert not any(data[self.metadata_at + metadata_bytes : self.begin])
        self.metadata = json.loads(metadata) if metadata else {}
        self.digest = digest(table + metadata + data[self.blocks_at : self.pages_at])
        assert data[32:48] == self.digest
        assert uuid.UUID(bytes=data[16:32]).version == 8
        self.check_blocks()
        self.fields = [self.field(table[at : at + 256]) for at in range(0, len(table), 256)]

    def u32(self, at: int) -> int:
        return int(struct.unpack_from("<I", self.data, at)[0])

    def check_blocks(self) -> None:
        for block in range(self.blocks):
            at = self.begin + block * 262144
            found = crc(self.data[at : min(at + 262144, self.blocks_at)])
            assert self.u32(self.blocks_at + 4 * block) == found
        for page in range(math.ceil(4 * self.blocks / 262144)):
            at = self.blocks_at + page * 262144
            found = crc(self.data[at : min(at + 262144, self.pages_at)])
            assert self.u32(self.pages_at + 4 * page) == found

    def field(self, record: bytes) -> dict[str, Any]:
        name = record[:64].rstrip(b"\0").decode()
        dtype, kind, dimensions, group = struct.unpack_from("<4I", record, 64)
        shape = struct.unpack_from("<8Q", record, 80)[:dimensions]
        rest = struct.unpack_from("<9Q", record, 144)
        row_bytes, rows, at, size, row_table, document_table, documents, vocabulary, end = rest
        assert at % (2 * MIB) == 0
        data = self.data[at : at + size]
        if kind == 1:
            starts = struct.unpack_from(f"<{documents + 1}Q", self.data, document_table)
            assert starts[-1] == rows
            cuts = [start * row_bytes for start in starts]
        elif kind == 2:
            cuts = [row * row_bytes for row in range(rows + 1)]
        else:
            groups = rows // group + 1
            bases = struct.unpack_from(f"<{groups}Q", self.data, row_table)
            parts = struct.unpack_from(f"<{rows + 1}I", self.data, row_table + 8 * groups)
            cuts = [bases[row // group] + part for row, part in enumerate(parts)]
            assert cuts[-1] == size
        code = FORMATS[dtype]
        values = [self.numbers(code, data[cuts[i] : cuts[i + 1]]) for i in range(len(cuts) - 1)]
        facts = {"kind": kind, "shape": shape, "vocabulary": vocabulary, "separator": end}
        return {"name": name, "values": values, **facts}

    def numbers(self, code: str, data: bytes) -> list[Any]:
        if code == "bf":
            halves = struct.unpack(f"<{len(data) // 2}H", data)
            return [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]
        return [value for (value,) in struct.iter_unpack("<" + code, data)]


EVERY_DTYPE = [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)]
EVERY_DTYPE += ["float16", "bfloat16", "float32", "float64", "bool"]


def test_a_file_of_every_kind_is_read_by_another_program(tmp_path: Path) -> None:
    fields = [
        Field(name="words", kind="tokens", dtype="uint16", vocabulary=500, separator=499),
        Field(name="pixels", kind="fixed", dtype="uint8", shape=(2, 3)),
        Field(name="Töne", kind="varying", dtype="float32", shape=(2,)),
        *(Field(name=dtype, kind="fixed", dtype=dtype) for dtype in EVERY_DTYPE),
    ]
    records = [
        {
            "words": [*range(n % 7), 499],
            "pixels": np.arange(6, dtype=np.uint8).reshape(2, 3) + n % 200,
            "Töne": np.full((n % 3, 2), n / 4, np.float32),
            **{dtype: float(n % 2) if "f" in dtype else n % 2 for dtype in EVERY_DTYPE},
            "bool": bool(n % 2),
        }
        for n in range(1100)
    ]
    for n, record in enumerate(records):
        # numpy has no bfloat16: the bits are given, as uint16
        record["bfloat16"] = np.uint16(0x3F80 * (n % 2))
    path = tmp_path / "a.hpd"
    about = dataset.build_records(records, path, fields)
    plain = PlainFile(path.read_bytes())
    assert plain.digest.hex() == about.digest
    assert [field["name"] for field in plain.fields] == [field.name for field in fields]
    words, pixels, tones, *others = plain.fields
    assert words["values"] == [record["words"] for record in records]
    assert (words["vocabulary"], words["separator"]) == (500, 500)
    assert pixels["shape"] == (2, 3)
    assert pixels["values"] == [record["pixels"].ravel().tolist() for record in records]
    assert tones["values"] == [record["Töne"].ravel().tolist() for record in records]
    for field in others:
        assert field["values"] == [[n % 2] for n in range(1100)], field["name"]


def test_text_is_read_by_another_program(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text " * 70_000)
    (tmp_path / "b.txt").write_bytes(b"more")
    path = tmp_path / "a.hpd"
    dataset.build([tmp_path / "a.txt", tmp_path / "b.txt"], path)
    plain = PlainFile(path.read_bytes())
    assert plain.metadata == {"tokenizer": "bytes"}
    assert [bytes(value) for value in plain.fields[0]["values"]] == [b"text " * 70_000, b"more"]


def sealed(content: bytes, offset: int, value: bytes) -> bytes:
    """The file with other bytes in the superblock, and its checksum made right again."""
    changed = bytearray(content)
    changed[offset : offset + len(value)] = value
    changed[4092:4096] = struct.pack("<I", crc(bytes(changed[:4092])))
    return bytes(changed)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("small")
    fields = [
        Field(name="words", kind="tokens", dtype="uint16", vocabulary=500),
        Field(name="tones", kind="varying", dtype="float32"),
    ]
    records = ({"words": [1, 2, 3], "tones": np.ones(4, np.float32)} for _ in range(3000))
    dataset.build_records(records, folder / "a.hpd", fields)
    return (folder / "a.hpd").read_bytes()


def test_other_versions_features_and_byte_orders_are_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.hpd"
    for offset, value, why in [
        (8, struct.pack("<I", 1), "is of version 1; this hpcore reads version 2: build it again"),
        (8, struct.pack("<I", 3), "is of version 3; .* use a newer hpcore"),
        (56, struct.pack("<Q", 4), r"features that this hpcore does not know \(bits 4\)"),
        (148, struct.pack(">I", 0x01020304), "little-endian"),
    ]:
        path.write_bytes(sealed(content, offset, value))
        with pytest.raises(Unsupported, match=why):
            dataset.info(path)
    swapped = bytearray(content)
    swapped[148:152] = struct.pack(">I", 0x01020304)  # and a checksum that is swapped as well
    path.write_bytes(swapped)
    with pytest.raises(Unsupported, match="written big-endian"):
        dataset.info(path)
    path.write_bytes(sealed(content, 48, struct.pack("<Q", 1 << 63)))
    dataset.info(path)  # an unknown compatible feature
    for offset, value in [(64, 4096), (104, 7), (128, 1), (120, 1 << 40), (80, 5000), (68, 2000)]:
        packed = struct.pack("<I" if offset in (64, 68) else "<Q", value)
        path.write_bytes(sealed(content, offset, packed))
        with pytest.raises(CorruptData, match="contradict"):
            dataset.info(path)


def test_a_bit_flipped_anywhere_is_named(tmp_path: Path, content: bytes) -> None:
    """Each region; the error says file, what and where."""
    plain = PlainFile(content)
    regions = {
        "superblock": [9, 20, 40, 60, 130, 2000, 4093],
        "field table": [4096, 4300, 4607],
        "between the metadata and the data": [4608, 1 * MIB, 2 * MIB - 1],
        "data of field words": [2 * MIB, 2 * MIB + 17999],
        "page table": [len(content) - 1],
        "page 0 of the block table": [plain.blocks_at, plain.pages_at - 1],
        "padding": [2 * MIB + 5 * 262144],
        "data of field tones": [4 * MIB, 4 * MIB + 47999],
    }
    table = 4 * MIB + 48000
    tables = -(-table // 4096) * 4096
    regions["data of field tones|document table|row table"] = [table, tables, plain.blocks_at - 1]
    path = tmp_path / "flipped.hpd"
    for why, offsets in regions.items():
        for offset in offsets:
            for bit in (0, 7):
                damaged = bytearray(content)
                damaged[offset] ^= 1 << bit
                path.write_bytes(damaged)
                with pytest.raises(CorruptData, match=rf"flipped\.hpd: .*({why})") as caught:
                    dataset.verify(path)
                if "data of" in why:
                    block = (offset - 2 * MIB) // 262144
                    place = f"block {block} of {plain.blocks} (offset {2 * MIB + block * 262144}, "
                    assert place in str(caught.value)
