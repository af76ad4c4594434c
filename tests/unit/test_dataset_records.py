"""Records of several fields: from Python, from images, joined."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_readback import values_of

from hpcore import _core, dataset
from hpcore.dataset import BuildOptions, Field
from hpcore.errors import CorruptData, InvalidArgument, MismatchError, NotFound

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
