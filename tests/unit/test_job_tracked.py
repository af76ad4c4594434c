"""Tracked state: refused by name, rolled back to the bit, built where it is missing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpcore.errors import InvalidArgument, Unsupported
from hpcore.gathering import difference
from hpcore.layout import dense
from hpcore.manifest import targets_of
from hpcore.plain import decode, encode
from hpcore.rehearsal import Pristine
from hpcore.rollback import Shadow
from hpcore.serving import regions_of
from hpcore.tracked import TrackedState, capture


class Odd(nn.Module):
    """Changes its buffers in every way there is."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("lazy", None)
        self.register_buffer("hidden", torch.zeros(2))
        self.register_buffer("large", torch.zeros(100_000))

    def forward(self, x: Tensor) -> Tensor:
        self.replaced = self.replaced + 1
        self.lazy = torch.ones(5)
        self.hidden.data.add_(1)
        self.large.add_(1)
        return self.norm(x)


def _bits(state: TrackedState) -> dict[str, Any]:
    parts = capture([*state.settled, *state.fluid])
    return {
        "trees": copy.deepcopy(parts.trees),
        "tensors": {n: t.detach().clone() for n, t in parts.by_name().items()},
    }


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (
        one["trees"] == other["trees"]
        and one["tensors"].keys() == other["tensors"].keys()
        and all(torch.equal(t, other["tensors"][n]) for n, t in one["tensors"].items())
    )


def _everything() -> tuple[TrackedState, dict[str, Any]]:
    model = nn.Sequential(nn.Linear(4, 4), Odd())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    held: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9),
        "scaler": torch.amp.GradScaler("cpu"),
        "diary": {"losses": [1.0], "best": None, "mean": torch.zeros(2)},
        "queue": list(range(9)),
        "average": torch.zeros(3),
        "generator": torch.Generator().manual_seed(5),
    }
    state = TrackedState()
    for name, holder in held.items():
        state.add(name, holder)
    return state, held


def _forward(held: dict[str, Any]) -> None:
    held["model"].zero_grad()
    held["scaler"].scale(held["model"](torch.randn(6, 4)).sum()).backward()
    held["scheduler"].step()
    held["diary"]["losses"].append(2.0)
    held["diary"]["new"] = {"x": 1}
    held["diary"]["mean"] += 1
    held["queue"].pop()
    held["average"].add_(1)
    torch.rand(3, generator=held["generator"])


def test_discarded_step_gives_back_every_bit() -> None:
    state, held = _everything()
    shadow = Shadow(state)
    for _ in range(3):
        shadow.refresh()
        before = _bits(state)
        _forward(held)
        assert not _same(before, _bits(state))
        shadow.restore()
        assert _same(before, _bits(state))
        _forward(held)  # this one is kept


def test_shadow_is_the_boundary_while_a_forward_runs() -> None:
    state, held = _everything()
    shadow = Shadow(state)
    shadow.refresh()
    before = {n: t.clone() for n, t in shadow.captured().by_name().items()}
    _forward(held)
    captured = shadow.captured()
    assert all(torch.equal(before[n], t) for n, t in captured.by_name().items())
    assert captured.trees != capture(state.fluid).trees
    live = {t.data_ptr() for t in capture(state.fluid).tensors if t.nbytes}
    assert not live & {address for address, _ in regions_of(captured.tensors)}


def _heal(source: TrackedState, receiver: TrackedState) -> None:
    """What checkpointless does between processes, within one."""
    for sending, receiving in (
        (source.settled, receiver.settled),
        (source.fluid, receiver.fluid),
    ):
        sent = capture(sending)
        specs = [
            [n, str(t.dtype)[6:], list(t.shape), list(t.stride()), ""]
            for n, t in zip(sent.names, sent.tensors, strict=True)
        ]
        trees = decode(encode(sent.trees))
        targets = targets_of(capture(receiving), decode(encode(specs)), {})
        assert [size for _, size in regions_of(targets)] == [
            size for _, size in regions_of(sent.tensors)
        ]
        with torch.no_grad():
            for target, tensor in zip(targets, sent.tensors, strict=True):
                target.copy_(tensor)
            for part, tree in zip(receiving, trees, strict=True):
                part.restore(tree, targets)


@pytest.mark.parametrize("steps_of_source", [0, 2])
@pytest.mark.parametrize("steps_of_receiver", [0, 3])
def test_newcomer_becomes_equal_with_or_without_optimizer_state(
    steps_of_source: int, steps_of_receiver: int
) -> None:
    torch.manual_seed(1)
    (source, held), (receiver, its) = _everything(), _everything()
    for who, steps in ((held, steps_of_source), (its, steps_of_receiver)):
        for _ in range(steps):
            _forward(who)
            who["scaler"].step(who["optimizer"])
            who["scaler"].update()
    parameters = list(its["model"].parameters())
    _heal(source, receiver)
    assert _same(_bits(source), _bits(receiver))
    assert all(a is b for a, b in zip(parameters, its["model"].parameters(), strict=True))
    for who in (held, its):  # both go on alike
        torch.manual_seed(2)
        _forward(who)
        who["scaler"].step(who["optimizer"])
        who["scaler"].update()
    assert _same(_bits(source), _bits(receiver))


def test_rehearsal_leaves_no_trace_but_touched_optimizer_state() -> None:
    state, held = _everything()
    before, shadow = _bits(state), Shadow(state)
    shadow.refresh()
    pristine = Pristine(state)
    _forward(held)
    held["scaler"].step(held["optimizer"])
    held["scaler"].update()
    pristine.give_back()
    shadow.restore()
    assert len(held["optimizer"].state) == 4
    pristine.forget_rehearsal()
    assert _same(before, _bits(state))


def test_scaler_of_an_interrupted_step_can_unscale_again() -> None:
    state, held = _everything()
    shadow = Shadow(state)
    shadow.refresh()
    for _ in range(2):
        _forward(held)
        held["scaler"].unscale_(held["optimizer"])  # raises if it was called since the last update
        shadow.restore()


def test_tied_parameters_are_sent_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    state = TrackedState()
    state.add("model", model)
    state.add("head", model[1])
    assert [t.shape for t in capture(state.settled).tensors].count(torch.Size([3, 3])) == 1


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (lambda: 1, "thing is a builtins.function"),
        (3, "thing is a builtins.int"),
        ({"a": object()}, r"thing\.a is a builtins.object"),
        (torch.zeros(4, 4)[:, :2], r"thing has shape \[4, 2\] and strides \[4, 1\]"),
        (torch.eye(3).to_sparse(), "thing is a torch.sparse_coo tensor"),
        (torch.zeros(2, device="meta"), "thing is on meta"),
        (nn.LazyLinear(3), "thing.weight has no shape yet"),
    ],
)
def test_what_cannot_be_restored_is_refused_by_name(holder: Any, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        TrackedState().add("thing", holder)


def test_name_is_taken_once() -> None:
    state, held = TrackedState(), {"a": 1}
    state.add("x", held)
    state.add("x", held)
    with pytest.raises(InvalidArgument, match="'x' is taken"):
        state.add("x", {})


def test_dense_is_told_from_strided() -> None:
    base = torch.zeros(4, 6, 2)
    assert dense(base) and dense(base.permute(2, 0, 1)) and dense(base[:1]) and dense(base[:0])
    assert not dense(base[:, :3]) and not dense(base[:, :, :1].expand(4, 6, 2))
    assert dense(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))


def test_layouts_that_differ_are_told_apart_by_name() -> None:
    def layout(width: int, extra: bool) -> list[list[str]]:
        state = TrackedState()
        state.add("model", nn.Linear(4, width))
        if extra:
            state.add("more", [])
        return [list(line) for line in state.layout]

    text = difference([layout(4, False), layout(4, False), layout(5, False)])
    assert "model.weight is float32[4, 4]" in text and "float32[5, 4]" in text and "rank 2" in text
    assert "more (list) is on rank 1 only" in difference([layout(4, False), layout(4, True)])
