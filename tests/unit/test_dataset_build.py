"""Builds: from every kind of input, equal to the byte for any number of processes."""

import base64
import json
import os
import struct
import subprocess
import sys
import textwrap
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hpcore import _core, dataset
from hpcore.cli.data import data as data_command
from hpcore.dataset import BuildOptions, Field
from hpcore.errors import CorruptData, InvalidArgument, MismatchError, NotFound, Unsupported


def stream_of(path: Path) -> list[list[int]]:
    """The documents of the first field, read back and checked."""
    about = dataset.verify(path)
    field = about.fields[0]
    file = _core.DatasetFile(str(path), True)
    tokens = np.frombuffer(file.read(0, 0, field.data_bytes), field.dtype)
    starts = np.frombuffer(file.starts(0, 0, field.documents), np.uint64)
    return [tokens[int(a) : int(b)].tolist() for a, b in pairwise(starts)]


def values_of(path: Path, name: str) -> list[Any]:
    """The rows of a fixed or varying field."""
    about = dataset.verify(path)
    file = _core.DatasetFile(str(path), True)
    number = file.find_field(name)
    field = about.fields[number]
    dtype = "uint16" if field.dtype == "bfloat16" else field.dtype
    data = np.frombuffer(file.read(number, 0, field.data_bytes), dtype)
    if field.kind == "fixed":
        return list(data.reshape(-1, *field.shape))
    starts = np.frombuffer(file.starts(number, 0, field.rows), np.uint64) // data.itemsize
    return [data[int(a) : int(b)].reshape(-1, *field.shape) for a, b in pairwise(starts)]


def ranks_file(folder: Path) -> Path:
    """A small vocabulary for tiktoken: the bytes, and some pairs."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [b"th", b"he", b" t", b"in", b"er", b" the", b"an", b"ing"]
    path = folder / "small.tiktoken"
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    path.write_bytes(b"".join(lines))
    return path


def prose(lines: int, seed: int = 1) -> str:
    random = np.random.default_rng(seed)
    words = ["the", "thing", "was", "then", "rather", "an", "other", "Zoë", "x=1;", "(in)", "3.14"]
    picked = random.integers(0, len(words), (lines, 9))
    return "\n".join(" ".join(words[i] for i in row) for row in picked) + "\n\n"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "long.txt").write_text(prose(60_000))  # three batches
    (folder / "line.txt").write_text(prose(30_000).replace("\n", " "))
    (folder / "dense.txt").write_text('{"the":[1,22],"other":thing}' * 50_000)
    (folder / "blank.txt").write_text("a\u00a0\nthe " * 150_000)
    (folder / "empty.txt").write_text("")
    for number in range(30):
        (folder / f"short{number:02}.txt").write_text(prose(number, number))
    (folder / "odd.txt").write_bytes(b"\xff\xfe not UTF-8 <|endoftext|>")
    return folder


def test_text_is_tokenised_as_if_it_were_never_cut(tmp_path: Path, texts: Path) -> None:
    pytest.importorskip("tiktoken")
    name = f"tiktoken:gpt2={ranks_file(tmp_path)}"
    one, three = tmp_path / "one.hpd", tmp_path / "three.hpd"
    about = dataset.build([texts], one, tokenizer=name)
    dataset.build([texts], three, tokenizer=name, options=BuildOptions(processes=3))
    assert one.read_bytes() == three.read_bytes()
    made = dataset.tokenizers.make_tokenizer(name)
    expected = [
        [*made.encode([file.read_bytes()])[0].tolist(), 50256]
        for file in dataset.text_files([texts])
        if file.stat().st_size
    ]
    assert stream_of(one) == expected
    assert (about.dtype, about.vocabulary, about.separator) == ("uint16", 50257, 50256)
    assert about.metadata == {"tokenizer": "tiktoken:gpt2"}


def test_text_without_a_line_end_is_cut_between_characters(tmp_path: Path) -> None:
    text = "é" * 1_500_000
    (tmp_path / "a").write_text("x" + text)
    dataset.build([tmp_path / "a"], tmp_path / "a.hpd")
    (document,) = stream_of(tmp_path / "a.hpd")
    assert bytes(document).decode() == "x" + text
    from hpcore.dataset.sources import cut_before

    for end in range(1, 9):
        head = "aé€😀".encode()[:end]
        cut = cut_before(head + b"")
        assert 0 < cut <= end
        if cut < end:
            head[:cut].decode()


def test_jsonl_parquet_and_arrow_give_the_same_documents(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    documents = [prose(n % 7, n) for n in range(300)] + ["", "last " * 400_000]
    table = arrow.table({"n": range(len(documents)), "body": documents})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    with arrow.ipc.new_file(tmp_path / "b.arrow", table.schema) as file:
        file.write_table(table, 64)
    with arrow.ipc.new_stream(tmp_path / "c.arrow", table.schema) as stream:
        stream.write_table(table, 64)
    with (tmp_path / "d.jsonl").open("w") as lines:
        for number, document in enumerate(documents):
            lines.write(json.dumps({"n": number, "body": document}) + "\n" * (1 + number % 2))
    expected = [list(document.encode()) for document in documents if document]
    contents = set()
    for source in ("a.parquet", "b.arrow", "c.arrow", "d.jsonl"):
        out = tmp_path / f"{source}.hpd"
        dataset.build([tmp_path / source], out, member="body", options=BuildOptions(processes=2))
        contents.add(out.read_bytes())
    assert len(contents) == 1
    assert stream_of(out) == expected


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not a JSON object"),
        ('{"other": "x"}', "KeyError"),
        ('{"text": 5}', "is not text"),
        ("[1]", "not a JSON object"),
    ],
)
def test_jsonl_that_is_wrong_is_named_and_removed(tmp_path: Path, line: str, why: str) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(InvalidArgument, match=rf"a\.jsonl, offset 17: .*{why}"):
        dataset.build([source], tmp_path / "a.hpd", options=BuildOptions(checkpoint_s=0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_hugging_face_tokenizers_are_used(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "hello": 1, "world": 2, "</s>": 3}
    made = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "t.json"))
    (tmp_path / "a.txt").write_text("hello world\nhello there")
    for processes in (1, 2):
        about = dataset.build(
            [tmp_path / "a.txt"],
            tmp_path / "a.hpd",
            tokenizer=f"tokenizers:{tmp_path / 't.json'}",
            options=BuildOptions(processes=processes),
        )
        assert stream_of(tmp_path / "a.hpd") == [[1, 2, 1, 0, 3]]
        assert (about.vocabulary, about.dtype) == (4, "uint8")
    with pytest.raises(NotFound):
        dataset.build([tmp_path], tmp_path / "x.hpd", tokenizer="tokenizers:absent.json")


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x")
    for module, name, extra in [
        ("tiktoken", "tiktoken:gpt2", "tiktoken"),
        ("tokenizers", "tokenizers:x.json", "tokenizers"),
    ]:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(Unsupported, match=rf"pip install 'hpcore\[{extra}\]'"):
            dataset.build([tmp_path / "a.txt"], tmp_path / "a.hpd", tokenizer=name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unsupported, match=r"pip install 'hpcore\[parquet\]'"):
        dataset.build([tmp_path / "a.txt"], tmp_path / "a.hpd", format="parquet")


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


RECORD_FIELDS = [
    Field(name="image", kind="fixed", dtype="uint8", shape=(2, 3)),
    Field(name="caption", kind="tokens", dtype="uint16", vocabulary=1000),
    Field(name="audio", kind="varying", dtype="float32", shape=(2,)),
    Field(name="score", kind="fixed", dtype="bfloat16"),
    Field(name="big", kind="varying", dtype="uint8"),
    Field(name="good", kind="fixed", dtype="bool"),
]


def record(number: int) -> dict[str, Any]:
    import torch

    random = np.random.default_rng(number)
    return {
        "image": random.integers(0, 256, (2, 3)),
        "caption": random.integers(0, 1000, number % 5).tolist(),
        "audio": random.random((number % 4, 2)),
        "score": torch.tensor(number / 2, dtype=torch.bfloat16),
        "big": bytes([number % 256]) * (400_000 if number == 7 else 3),
        "good": number % 2 == 0,
    }


def test_records_of_several_fields(tmp_path: Path) -> None:
    out = tmp_path / "r.hpd"
    about = dataset.build_records((record(n) for n in range(2500)), out, RECORD_FIELDS)
    assert about.records == 2500
    assert all(field.data_offset % (2 << 20) == 0 for field in about.fields)
    expected = [record(n) for n in range(2500)]
    for name in ("image", "audio", "good"):
        for got, want in zip(values_of(out, name), expected, strict=True):
            assert np.array_equal(got, np.asarray(want[name], got.dtype))
    scores = np.array(values_of(out, "score")).astype("u4") << 16
    assert scores.view("f4")[:10].tolist() == [n / 2 for n in range(10)]
    big = values_of(out, "big")
    assert big[7].tobytes() == expected[7]["big"]  # longer than a block
    assert big[8].tobytes() == b"\x08" * 3
    file = _core.DatasetFile(str(out), True)
    caption = file.find_field("caption")
    for number in (0, 1, 5, 2499):
        begin, end = file.document(caption, number)
        tokens = np.frombuffer(file.read(caption, 2 * begin, 2 * (end - begin)), np.uint16)
        assert tokens.tolist() == expected[number]["caption"]
    with pytest.raises(NotFound, match="it has image, caption"):
        file.find_field("nothing")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image": np.zeros((3, 2))}, "field 'image'"),
        ({"image": np.zeros((3, 2), np.uint8)}, r"has shape \(3, 2\), should have \(2, 3\)"),
        ({"caption": [1000]}, "token 1000 is not in a vocabulary of 1000"),
        ({"caption": [-1]}, "token -1"),
        ({"audio": np.zeros(4, np.float32)}, r"should have \(n, 2\)"),
        ({"score": 1 + 2j}, "does not fit in bfloat16"),
        ({"good": None}, "field 'good'"),
    ],
)
def test_a_record_that_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    records = [record(0), {**record(1), **change}]
    with pytest.raises(InvalidArgument, match=rf"record 1.*{why}"):
        dataset.build_records(records, tmp_path / "r.hpd", RECORD_FIELDS)
    with pytest.raises(InvalidArgument, match="record 0, field 'image': it is not there"):
        dataset.build_records([{}], tmp_path / "r.hpd", RECORD_FIELDS)
    assert list(tmp_path.iterdir()) == []


def test_images_become_rows(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures = {}
    for label in ("cat", "dog"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (4 + number, 5, 3), np.uint8)
            image.fromarray(pixels).save(tmp_path / "in" / label / f"{number}.png")
            pictures[label, number] = pixels
    out = tmp_path / "i.hpd"
    about = dataset.build_images([tmp_path / "in"], out, size=(8, 6))
    assert (about.records, about.metadata) == (6, {"labels": ["cat", "dog"]})
    assert np.array(values_of(out, "image")).shape == (6, 8, 6, 3)
    assert [int(label) for label in values_of(out, "label")] == [0, 0, 0, 1, 1, 1]
    dataset.build_images([tmp_path / "in"], out, options=BuildOptions(processes=2))
    shapes = values_of(out, "shape")
    for got, shape, want in zip(values_of(out, "image"), shapes, pictures.values(), strict=True):
        assert np.array_equal(got.reshape(shape), want)
    (tmp_path / "in" / "dog" / "1.png").write_bytes(b"no image")
    for processes in (1, 2):
        with pytest.raises(InvalidArgument, match=r"1\.png cannot be decoded"):
            dataset.build_images(
                [tmp_path / "in"], tmp_path / "j.hpd", options=BuildOptions(processes=processes)
            )


def test_merge_is_one_behind_the_other(tmp_path: Path) -> None:
    parts = [tmp_path / f"{n}.hpd" for n in range(3)]
    for number, part in enumerate(parts):
        records = (record(n) for n in range(number * 5, number * 5 + 5))
        dataset.build_records(records, part, RECORD_FIELDS)
    dataset.build_records((record(n) for n in range(15)), tmp_path / "whole.hpd", RECORD_FIELDS)
    dataset.merge(parts, tmp_path / "merged.hpd")
    assert (tmp_path / "merged.hpd").read_bytes() == (tmp_path / "whole.hpd").read_bytes()
    (tmp_path / "t").write_text("x")
    dataset.build([tmp_path / "t"], tmp_path / "t.hpd")
    with pytest.raises(MismatchError, match="cannot follow"):
        dataset.merge([parts[0], tmp_path / "t.hpd"], tmp_path / "m.hpd")
    damaged = bytearray(parts[2].read_bytes())
    damaged[2 << 20] ^= 4
    parts[2].write_bytes(damaged)
    with pytest.raises(CorruptData, match=r"2\.hpd: block 0 of"):
        dataset.merge(parts, tmp_path / "m.hpd")
    assert not (tmp_path / "m.hpd").exists()


def test_commands_show_and_merge(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    runner = CliRunner()

    def invoke(*arguments: object) -> str:
        done = runner.invoke(data_command, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    invoke("build", tmp_path / "a.hpd", tmp_path / "a.txt")
    made = invoke("build", tmp_path / "b.hpd", tmp_path / "b.jsonl", "--member", "body", "--json")
    assert json.loads(made)["fields"][0]["documents"] == 2
    invoke("merge", tmp_path / "c.hpd", tmp_path / "a.hpd", tmp_path / "b.hpd")
    shown = invoke("head", tmp_path / "c.hpd", "--first", 1, "--width", 2).splitlines()
    assert shown == ["1  tokens  'on' ... 3 in all", "2  tokens  'tw' ... 3 in all"]
    past = runner.invoke(data_command, ["head", str(tmp_path / "c.hpd"), "--first", "3"])
    assert past.exit_code == 1
    assert "has 3 records" in past.output


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
