"""Tokens that other programs wrote, and inputs of any size in bounded memory."""

import os
import struct
import subprocess
import sys
import textwrap
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from dataset_readback import stream_of

from hpcore import dataset
from hpcore.errors import CorruptData, InvalidArgument, NotFound


def test_nanogpt_files_are_imported(tmp_path: Path) -> None:
    tokens = np.array([5, 6, 50256, 7, 50256, 50256, 8, 9], "<u2")
    (tmp_path / "a.bin").write_bytes(tokens.tobytes())
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, tokens.size
    (tmp_path / "b.bin").write_bytes(header.tobytes() + tokens.tobytes())
    sources = [tmp_path / "a.bin", tmp_path / "b.bin"]
    dataset.build(sources, tmp_path / "o.hpd", separator=50256)
    documents = [[5, 6, 50256], [7, 50256], [50256], [8, 9]]
    assert stream_of(tmp_path / "o.hpd") == documents * 2
    dataset.build(sources, tmp_path / "o.hpd", vocabulary=50257)
    assert stream_of(tmp_path / "o.hpd") == [tokens.tolist()] * 2
    with pytest.raises(InvalidArgument, match=r"a\.bin: token 50256 is not in a vocabulary of 9"):
        dataset.build(sources, tmp_path / "o.hpd", vocabulary=9)
    (tmp_path / "b.bin").write_bytes(header.tobytes() + tokens.tobytes()[2:])
    with pytest.raises(CorruptData, match="says that it holds 8 tokens"):
        dataset.build(sources, tmp_path / "o.hpd")


def write_megatron(path: Path, documents: list[list[list[int]]], dtype: str, code: int) -> None:
    """As Megatron's IndexedDatasetBuilder does: documents of sequences."""
    sequences = [sequence for document in documents for sequence in document]
    item = np.dtype(dtype).itemsize
    path.with_suffix(".bin").write_bytes(
        b"".join(np.array(sequence, dtype).tobytes() for sequence in sequences)
    )
    sizes = np.array([len(sequence) for sequence in sequences], "<i4")
    pointers = (np.cumsum(sizes, dtype="<i8") - sizes) * item
    ends = np.cumsum([0, *(len(document) for document in documents)]).astype("<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sequences), ends.size)
    path.with_suffix(".idx").write_bytes(
        head + sizes.tobytes() + pointers.astype("<i8").tobytes() + ends.tobytes()
    )


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4)])
def test_megatron_files_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, code: int
) -> None:
    monkeypatch.setattr("hpcore.dataset.imports._BATCH_TOKENS", 7)
    monkeypatch.setattr("hpcore.dataset.imports._DOCUMENTS", 3)
    random = np.random.default_rng(2)
    documents = [
        [random.integers(0, 60000, random.integers(1, 9)).tolist() for _ in range(1 + n % 3)]
        for n in range(40)
    ]
    write_megatron(tmp_path / "a", documents, dtype, code)
    about = dataset.build([tmp_path / "a.idx"], tmp_path / "a.hpd", vocabulary=60000)
    assert stream_of(tmp_path / "a.hpd") == [list(chain(*document)) for document in documents]
    assert about.dtype == "uint16"
    (tmp_path / "a.bin").unlink()
    with pytest.raises(NotFound, match=r"a\.bin"):
        dataset.build([tmp_path / "a.idx"], tmp_path / "b.hpd")


@pytest.mark.skipif("HPCORE_SANITIZED" in os.environ, reason="a sanitizer's own memory counts")
def test_memory_is_bounded_for_any_input(tmp_path: Path) -> None:
    (tmp_path / "long.txt").touch()
    os.truncate(tmp_path / "long.txt", 300 << 20)  # one document
    tokens = np.full(4_000_000, 9, "<u2")
    tokens[1::2] = 1  # 2 million documents
    (tmp_path / "tiny.bin").write_bytes(tokens.tobytes())
    script = """
        import sys
        from hpcore import dataset
        source, out, separator = sys.argv[1:]
        about = dataset.build([source], out, separator=int(separator) if separator else None)
        status = open("/proc/self/status").read()  # ru_maxrss would be the parent's
        print(about.documents, int(status.split("VmHWM:")[1].split()[0]) >> 10)
    """
    for source, separator, documents in [("long.txt", "", 1), ("tiny.bin", "1", 2_000_000)]:
        out = tmp_path / "o.hpd"
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), tmp_path / source, out, separator],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        found, peak_mib = map(int, done.stdout.split())
        assert found == documents
        assert peak_mib < 256
        dataset.verify(out)
