"""Builds: from every kind of input, equal to the byte for any number of processes."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dataset_readback import stream_of

from hpcore import dataset
from hpcore.cli.data import data as data_command
from hpcore.dataset import BuildOptions
from hpcore.errors import InvalidArgument, NotFound, Unsupported


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
