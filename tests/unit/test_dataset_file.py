"""The dataset file: what goes in comes out; damage is named; nothing half-written appears."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from hpcore import dataset
from hpcore.cli.data import data as data_command
from hpcore.errors import CorruptData, InvalidArgument, NotFound

BLOCK = 256 << 10
DATA = 2 << 20


def make(folder: Path, documents: list[bytes], **options: object) -> Path:
    sources = []
    for number, document in enumerate(documents):
        source = folder / f"doc{number:03}.txt"
        source.write_bytes(document)
        sources.append(source)
    out = folder / "tokens.hpd"
    dataset.build_text(sources, out, **options)  # type: ignore[arg-type]
    return out


def pattern(size: int) -> bytes:
    return bytes((7 * i + i // 251) % 256 for i in range(size))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_dataset_returns_what_was_put_in(tmp_path: Path, dtype: str) -> None:
    text = pattern(2 * BLOCK + 77)
    path = make(tmp_path, [text[:1000], text[1000:]], dtype=dtype)
    with dataset.MappedDataset(path, sequence=100) as mapped:
        assert len(mapped) == (len(text) - 1) // 100
        whole = torch.tensor(list(text))
        indices = [0, len(mapped) - 1, BLOCK // 100, 5, 5]
        batch = mapped.batch(indices)
        assert batch.shape == (5, 101)
        assert batch.dtype == torch.int64
        for row, index in zip(batch, indices, strict=True):
            assert torch.equal(row, whole[index * 100 : index * 100 + 101])
        assert torch.equal(mapped[3], mapped.batch([3])[0])


def test_dataset_keeps_document_boundaries_and_separators(tmp_path: Path) -> None:
    path = make(tmp_path, [b"ab", b"", b"cde"], dtype="uint16", separator=256)
    about = dataset.info(path)
    assert (about.tokens, about.documents, about.vocabulary, about.separator) == (7, 2, 257, 256)
    mapped = dataset.MappedDataset(path, sequence=6)
    assert mapped[0].tolist() == [97, 98, 256, 99, 100, 101, 256]
    assert mapped._file.documents() == [0, 3, 7]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_dataset_separator_falls_on_a_block_boundary(tmp_path: Path, dtype: str) -> None:
    per_block = BLOCK // (1 if dtype == "uint8" else 2)
    separator = 7 if dtype == "uint8" else 256
    path = make(tmp_path, [b"x" * (per_block - 1), b"y" * 10], dtype=dtype, separator=separator)
    dataset.verify(path)
    mapped = dataset.MappedDataset(path, sequence=per_block + 9)
    tokens = mapped[0].tolist()
    assert tokens[per_block - 2 : per_block + 1] == [ord("x"), separator, ord("y")]


def test_dataset_build_is_reproducible(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = make(tmp_path / "a", [b"hello"]), make(tmp_path / "b", [b"hello"])
    assert one.read_bytes() == two.read_bytes()
    assert dataset.info(one).uuid == dataset.info(two).uuid
    (tmp_path / "c").mkdir()
    assert dataset.info(make(tmp_path / "c", [b"hellp"])).uuid != dataset.info(one).uuid


def test_dataset_names_the_flipped_block(tmp_path: Path) -> None:
    path = make(tmp_path, [pattern(3 * BLOCK)])
    with path.open("r+b") as stream:
        stream.seek(DATA + BLOCK + 5)
        stream.write(b"\xff" if pattern(BLOCK + 6)[-1] != 0xFF else b"\x00")
    mapped = dataset.MappedDataset(path, sequence=64)
    mapped.batch([0])  # another block: not touched, not blamed
    where = rf"{path.name}: block 1 of 4 \(offset {DATA + BLOCK}"
    for _ in range(2):
        with pytest.raises(CorruptData, match=where):
            mapped.batch([0, BLOCK // 64 + 2])
    with pytest.raises(CorruptData, match=where):
        dataset.verify(path)
    dataset.MappedDataset(path, sequence=64, verify=False).batch([BLOCK // 64 + 2])


@pytest.mark.parametrize("offset", [40, 2000, 4094])
def test_dataset_notices_a_damaged_superblock(tmp_path: Path, offset: int) -> None:
    path = make(tmp_path, [b"some text"])
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptData, match="superblock"):
        dataset.info(path)


def test_dataset_notices_damaged_tables(tmp_path: Path) -> None:
    path = make(tmp_path, [b"some text"])  # a block of data, padded; the document table's block
    content = bytearray(path.read_bytes())
    size = len(content)
    places = [(size - 1, "page table"), (size - 5, "block table"), (DATA + 4096, "block 0")]
    for offset, name in places:
        damaged = bytearray(content)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptData, match=name):
            dataset.verify(path)
    with pytest.raises(CorruptData, match="block 0"):
        dataset.MappedDataset(path, sequence=4)._file.document(0, 0)


@pytest.mark.parametrize("left", [0, 100, 4096, DATA + 10])
def test_dataset_notices_a_file_cut_short(tmp_path: Path, left: int) -> None:
    path = make(tmp_path, [pattern(BLOCK)])
    os.truncate(path, left)
    with pytest.raises(CorruptData, match=r"cut short|too few|contradict"):
        dataset.MappedDataset(path, sequence=8)


def test_dataset_cut_short_while_open_is_an_error(tmp_path: Path) -> None:
    path = make(tmp_path, [pattern(2 * BLOCK)])
    mapped = dataset.MappedDataset(path, sequence=8)
    os.truncate(path, DATA + 100)
    with pytest.raises(CorruptData, match="while it was open"):
        mapped.batch([len(mapped) - 1])


def test_dataset_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        dataset.MappedDataset(tmp_path / "absent.hpd")
    other = tmp_path / "other.hpd"
    other.write_bytes(b"x" * 5000)
    with pytest.raises(CorruptData, match="magic"):
        dataset.MappedDataset(other)


def test_dataset_build_leaves_nothing_half_written(tmp_path: Path) -> None:
    out = tmp_path / "out.hpd"
    with pytest.raises(NotFound):
        dataset.build_text([tmp_path / "absent"], out)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="nothing to write"):
        dataset.build_text([tmp_path / "empty"], out)
    with pytest.raises(InvalidArgument, match="vocabulary"):
        dataset.build_text([tmp_path / "empty"], out, separator=256)
    assert sorted(os.listdir(tmp_path)) == ["empty"]


def test_dataset_indices_out_of_range_are_named(tmp_path: Path) -> None:
    mapped = dataset.MappedDataset(make(tmp_path, [pattern(100)]), sequence=9)
    assert len(mapped) == 11
    for index in (11, -1, 2**60):
        with pytest.raises(InvalidArgument):
            mapped.batch([0, index])
        with pytest.raises(IndexError):
            mapped[index]
    assert mapped.batch([]).shape == (0, 10)
    with pytest.raises(InvalidArgument, match="shorter sequence"):
        dataset.MappedDataset(mapped.path, sequence=100)
    mapped.close()
    mapped.close()
    with pytest.raises(InvalidArgument, match="closed"):
        mapped.batch([0])


def test_dataset_works_in_a_dataloader(tmp_path: Path) -> None:
    mapped = dataset.MappedDataset(make(tmp_path, [pattern(1000)]), sequence=10)
    loader = torch.utils.data.DataLoader(mapped, batch_size=8)
    assert sum(len(batch) for batch in loader) == len(mapped) == 99
    assert torch.equal(pickle.loads(pickle.dumps(mapped))[4], mapped[4])


def test_dataset_command_builds_and_verifies(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"text")
    (tmp_path / "in" / "a.bin").write_bytes(b"\0\0")
    out = str(tmp_path / "o.hpd")
    runner = CliRunner()
    built = runner.invoke(data_command, ["build", out, str(tmp_path / "in"), "--pattern", "*.txt"])
    assert built.exit_code == 0, built.output
    assert dataset.info(out).tokens == 4
    assert runner.invoke(data_command, ["info", out]).exit_code == 0
    assert runner.invoke(data_command, ["verify", out]).exit_code == 0
    os.truncate(out, 5000)
    broken = runner.invoke(data_command, ["verify", out])
    assert broken.exit_code == 1
    assert "cut short" in broken.output
