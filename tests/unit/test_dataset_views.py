"""Parts, mixtures and document boundaries: what is in them, exactly."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from dataset_files import token_file
from hypothesis import given
from hypothesis import strategies as st

from hpcore import dataset
from hpcore.dataset import MappedDataset, Mixture
from hpcore.dataset.mixture import LARGEST_TOTAL, integer_weights
from hpcore.errors import InvalidArgument


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MappedDataset:
    return MappedDataset(token_file(tmp_path_factory.mktemp("views"), 20_031)[0], 20)


@pytest.mark.parametrize("group", [1, 7, 64])
def test_split_parts_are_disjoint_and_whole(data: MappedDataset, group: int) -> None:
    parts = data.split({"train": 0.9, "validation": 0.07, "test": 0.03}, seed=4, group=group)
    members = {name: [p.sample_of(i) for i in range(len(p))] for name, p in parts.items()}
    every = [sample for samples in members.values() for sample in samples]
    assert sorted(every) == list(range(len(data)))
    assert abs(len(members["train"]) - 0.9 * len(data)) <= 2 * group
    for samples in members.values():
        groups = Counter(sample // group for sample in samples)
        whole = len(data) // group
        assert all(n == group or g >= whole for g, n in groups.items())
    part = parts["validation"]
    assert torch.equal(part.batch([3, 0]), data.batch([part.sample_of(3), part.sample_of(0)]))
    assert [row.tolist() for row in part] == [data[s].tolist() for s in members["validation"]]


def test_split_is_keyed_and_stays(data: MappedDataset) -> None:
    def members(seed: int) -> list[int]:
        part = data.split({"a": 0.5}, seed=seed)["a"]
        return [part.sample_of(i) for i in range(len(part))]

    assert members(1) == members(1)
    common = len(set(members(1)) & set(members(2)))
    assert 180 < common < 320  # half of a half, of 1001
    assert members(1) != data.order(1, 0).many(0, 500)


def test_split_refuses_what_is_no_split(data: MappedDataset) -> None:
    for shares in ({}, {"a": 0.7, "b": 0.4}, {"a": -0.1}):
        with pytest.raises(InvalidArgument, match="shares"):
            data.split(shares)
    with pytest.raises(InvalidArgument, match="group"):
        data.split({"a": 1}, group=0)
    with pytest.raises(InvalidArgument, match="out of range"):
        data.split({"a": 0.5})["a"].batch([501])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(any))
def test_integer_weights_are_close(weights: list[float]) -> None:
    found = integer_weights(weights)
    assert sum(found) <= LARGEST_TOTAL
    exact = [Fraction(str(weight)) for weight in weights]
    for weight, integer in zip(exact, found, strict=True):
        assert (weight == 0) == (integer == 0)
        off = abs(Fraction(integer, sum(found)) - weight / sum(exact))
        assert off <= Fraction(len(weights) + 1, LARGEST_TOTAL)


def test_integer_weights_are_exact_where_they_can_be() -> None:
    assert integer_weights([0.7, 0.2, 0.1]) == [7, 2, 1]
    assert integer_weights([300, 100]) == [3, 1]
    assert integer_weights([0.5, 0, 0.25]) == [2, 0, 1]
    for wrong in ([], [0.0], [-1, 2], [float("inf")]):
        with pytest.raises(InvalidArgument, match="weights"):
            integer_weights(wrong)


def test_mixture_gives_its_members_samples(data: MappedDataset, tmp_path: Path) -> None:
    other = MappedDataset(token_file(tmp_path, 500)[0], 20)
    mixture = Mixture([data, other], [0.75, 0.25])
    assert len(mixture) == len(data) + len(other)
    samples = mixture.samples_at(1, 0, 400)
    assert sum(sample >= len(data) for sample in samples) == 100
    batch = mixture.batch(samples[:16])
    for row, sample in zip(batch, samples[:16], strict=True):
        member, own = mixture.member_of(sample)
        assert torch.equal(row, (data, other)[member][own])
    assert torch.equal(mixture.read(1, 0, 16), batch)
    with pytest.raises(InvalidArgument, match="out of range"):
        mixture.batch([len(mixture)])
    with pytest.raises(InvalidArgument, match="different samples"):
        Mixture([data, MappedDataset(other.path, 10)], [1, 1]).read(1, 0, 4)


def test_mixture_of_parts_and_maps(data: MappedDataset) -> None:
    parts = data.split({"a": 0.5, "b": 0.5})
    mixture = Mixture([parts["a"], parts["b"].map(lambda row: -row)], [1, 1])
    batch = mixture.read(3, 0, 10)
    assert sum(bool((row <= 0).all()) for row in batch) == 5


DOCUMENTS = [b"aaaa", b"b", b"cccccccccc", b"dd", b"eeeeeee", b"f" * 40]


def text_dataset(folder: Path, sequence: int) -> MappedDataset:
    sources = []
    for number, document in enumerate(DOCUMENTS):
        sources.append(folder / f"{number}.txt")
        sources[-1].write_bytes(document)
    dataset.build_text(sources, folder / "docs.hpd")
    return MappedDataset(folder / "docs.hpd", sequence)


@pytest.mark.parametrize("sequence", [1, 3, 8, 30])
def test_boundaries_follow_the_documents(tmp_path: Path, sequence: int) -> None:
    data = text_dataset(tmp_path, sequence)
    whole = b"".join(DOCUMENTS)  # each document is one letter: it tells where it is
    found = data.boundaries(range(len(data)))
    for row in range(len(data)):
        text = whole[row * sequence : (row + 1) * sequence + 1]
        for i in range(sequence):
            assert found.documents[row, i] == len(set(text[: i + 1])) - 1
            assert found.positions[row, i] == text[:i].count(text[i])
            assert bool(found.continues[row, i]) == (text[i] == text[i + 1])
    batch = data.batch(range(len(data)))
    targets = found.targets(batch)
    assert bool(((targets == batch[:, 1:]) | (targets == -100)).all())
    assert bool(((targets == -100) == (batch[:, 1:] != batch[:, :-1])).all())
    bounds, longest = found.cu_seqlens()
    pieces = list(bounds.diff().tolist())
    assert (bounds[0], bounds[-1], longest) == (0, found.documents.numel(), max(pieces))
    assert len(pieces) == int((found.documents.max(dim=1).values + 1).sum())


def test_attention_stops_at_document_boundaries(tmp_path: Path) -> None:
    data = text_dataset(tmp_path, 16)
    found = data.boundaries([0, 1])
    mask = found.attention_mask()
    assert mask.shape == (2, 1, 16, 16)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 16, 8, dtype=torch.float64) for _ in range(3))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    for row in range(2):
        for document in range(int(found.documents[row].max()) + 1):
            mine = found.documents[row] == document
            alone = torch.nn.functional.scaled_dot_product_attention(
                q[row : row + 1, :, mine],
                k[row : row + 1, :, mine],
                v[row : row + 1, :, mine],
                is_causal=True,
            )
            assert torch.allclose(out[row : row + 1, :, mine], alone)


@pytest.mark.parametrize("causal", [True, False])
def test_flex_attention_sees_the_same_mask(tmp_path: Path, causal: bool) -> None:
    from torch.nn.attention.flex_attention import create_mask

    found = text_dataset(tmp_path, 16).boundaries([0, 1])
    made = create_mask(found.mask_mod(causal), 2, 1, 16, 16, device="cpu")
    assert torch.equal(made, found.attention_mask(causal))


def test_boundaries_need_documents_in_range(tmp_path: Path) -> None:
    data = text_dataset(tmp_path, 8)
    with pytest.raises(InvalidArgument, match="out of range"):
        data.boundaries([len(data)])
