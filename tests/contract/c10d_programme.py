"""A list of c10d operations over several groups, which a set of ranks runs in any interleaving.

Everything that the ranks need is made before they are forked: inputs and what must come of them.
Each rank begins its operations in the order of the list, so that every group sees one order, and
waits for those under way in an order of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from c10d_layouts import Shape, blank, place
from c10d_reference import FACTOR, Expected, any_bits, numbers, reduced

REDUCING = ("all_reduce", "all_reduce_coalesced", "reduce", "reduce_scatter")
REDUCING += ("reduce_scatter_tensor",)
MOVING = ("broadcast", "all_gather", "all_gather_into_tensor", "gather", "scatter", "all_to_all")
MOVING += ("all_to_all_single", "message", "barrier")
IN_PLACE = ("all_reduce", "all_reduce_coalesced", "reduce", "broadcast")

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Step:
    """One operation. Members count from 0 within their group."""

    kind: str
    group: int
    dtype: torch.dtype
    reduction: str
    shape: Shape
    layout: str
    root: int
    waits: bool  # begun as a synchronous operation
    direct: bool  # the group's own method: complex numbers are not seen as pairs of real ones
    seed: int


@dataclass
class Share:
    """What one member of a step brings, and what it must hold afterwards."""

    inputs: Tensors = field(default_factory=list)
    outputs: list[Expected] = field(default_factory=list)


@dataclass(frozen=True)
class Programme:
    world_size: int
    groups: tuple[tuple[int, ...], ...]  # the first has all ranks
    steps: tuple[Step, ...]


def shares_of(step: Step, members: int) -> list[Share]:
    """What each member brings to a step and must get from it."""
    maker = Maker(step, range(members))
    return maker.of_reduction() if step.kind in REDUCING else maker.of_movement()


@dataclass(frozen=True)
class Maker:
    """Makes the shares of one step."""

    step: Step
    ranks: range

    @property
    def rows(self) -> int:
        return self.step.shape[0] if self.step.shape else 1

    def new(self, member: int, more_rows: int | None = None, part: int = 0) -> torch.Tensor:
        """A member's tensor: of the step's shape, or with so many rows more than that."""
        step = self.step
        shape = step.shape
        if more_rows is not None:
            shape = (self.rows + more_rows, *shape[1:])
        make = numbers if step.kind in REDUCING else any_bits
        seed = step.seed * 64 + member * 8 + part
        if step.layout == "expanded" and shape and shape[0] > 1:
            return make(step.dtype, (1, *shape[1:]), seed).expand(shape).contiguous()
        return make(step.dtype, shape, seed)

    def joined(self, parts: Tensors) -> Expected:
        return reduced(self.step.reduction, parts)

    def of_reduction(self) -> list[Share]:
        ranks, rows = self.ranks, self.rows
        mine = [self.new(m) for m in ranks]
        match self.step.kind:
            case "all_reduce":
                return [Share([mine[m]], [self.joined(mine)]) for m in ranks]
            case "all_reduce_coalesced":
                more = [self.new(m, 2, 1) for m in ranks]
                both = [self.joined(mine), self.joined(more)]
                return [Share([mine[m], more[m]], both) for m in ranks]
            case "reduce":
                total, root = self.joined(mine), self.step.root % len(ranks)
                return [
                    Share([mine[m]], [total if m == root else Expected(mine[m])]) for m in ranks
                ]
            case "reduce_scatter":  # sizes may differ by rank
                parts = [[self.new(m, to, to) for to in ranks] for m in ranks]
                return [Share(parts[m], [self.joined([p[m] for p in parts])]) for m in ranks]
        wholes = [self.new(m, rows * (len(ranks) - 1)) for m in ranks]
        chunks = [[w[m * rows : (m + 1) * rows] for w in wholes] for m in ranks]
        return [Share([wholes[m]], [self.joined(chunks[m])]) for m in ranks]

    def of_movement(self) -> list[Share]:
        ranks, rows, step = self.ranks, self.rows, self.step
        root = step.root % len(ranks)
        mine = [self.new(m) for m in ranks]
        match step.kind:
            case "broadcast":
                return [Share([mine[m]], [Expected(mine[root])]) for m in ranks]
            case "all_gather" | "gather":  # sizes may differ by rank
                mine = [self.new(m, m) for m in ranks]
                every = [Expected(part) for part in mine]
                takers = ranks if step.kind == "all_gather" else [root]
                return [Share([mine[m]], every if m in takers else []) for m in ranks]
            case "all_gather_into_tensor":
                whole = torch.cat([part.reshape(rows, *step.shape[1:]) for part in mine])
                return [Share([mine[m]], [Expected(whole)]) for m in ranks]
            case "scatter":
                dealt = [self.new(0, m, m) for m in ranks]
                return [Share(dealt if m == root else [], [Expected(dealt[m])]) for m in ranks]
            case "all_to_all" | "all_to_all_single":
                more = [[_rows(step, s, t, rows) - rows for t in ranks] for s in ranks]
                sent = [[self.new(s, more[s][t], t) for t in ranks] for s in ranks]
                got = [[sent[s][t] for s in ranks] for t in ranks]
                if step.kind == "all_to_all":
                    return [Share(sent[m], [Expected(part) for part in got[m]]) for m in ranks]
                whole_got = [Expected(torch.cat(got[m])) for m in ranks]
                return [Share([torch.cat(sent[m])], [whole_got[m]]) for m in ranks]
            case "message":
                shares = [Share() for _ in ranks]
                shares[root].inputs = [mine[root]]
                shares[_target(step, len(ranks))].outputs = [Expected(mine[root])]
                return shares
        return [Share() for _ in ranks]


def _rows(step: Step, source: int, target: int, rows: int) -> int:
    """How many rows an uneven exchange moves; with an even seed it is not uneven."""
    return rows if step.seed % 2 == 0 else (step.seed + 5 * source + 3 * target) % (rows + 2)


def _target(step: Step, members: int) -> int:
    return (step.root + 1 + step.seed % (members - 1)) % members


class Runner:
    """One rank's run of a programme."""

    def __init__(self, programme: Programme, shares: list[list[Share]], rank: int) -> None:
        self.programme = programme
        self.shares = shares
        self.rank = rank
        self.order = random.Random(len(programme.steps) * 16 + rank)
        self.under_way: list[tuple[int, Any, Callable[[], None]]] = []
        self.groups: list[Any] = [dist.group.WORLD]
        self.groups += [dist.new_group(list(members)) for members in programme.groups[1:]]

    def run(self) -> None:
        for number, step in enumerate(self.programme.steps):
            members = self.programme.groups[step.group]
            if self.rank in members:
                self._begin(number, step, members.index(self.rank), len(members))
            while self.under_way and self.order.random() < 0.3:
                self._end(self.order.randrange(len(self.under_way)))
        while self.under_way:
            self._end(self.order.randrange(len(self.under_way)))

    def _begin(self, number: int, step: Step, member: int, members: int) -> None:
        share = self.shares[number][member]
        in_place = step.kind in IN_PLACE
        outputs_layout = "transposed" if step.layout == "expanded" else step.layout
        inputs = [place(t, outputs_layout if in_place else step.layout) for t in share.inputs]
        outputs = inputs
        if not in_place:
            empty = [blank(step.dtype, tuple(e.value.shape)) for e in share.outputs]
            outputs = [place(tensor, outputs_layout) for tensor in empty]
        call = Call(self.groups[step.group], step, number, member, members)

        def check() -> None:
            for placed, expected in zip(outputs, share.outputs, strict=True):
                placed.check(expected)
            if not in_place:
                for placed, values in zip(inputs, share.inputs, strict=True):
                    placed.check(Expected(values))

        try:
            work = call.begin([p.view for p in inputs], [p.view for p in outputs])
            if work is None:
                check()
        except Exception as error:
            raise AssertionError(f"step {number}, member {member}: {step}") from error
        if work is not None:
            self.under_way.append((number, work, check))

    def _end(self, place: int) -> None:
        number, work, check = self.under_way.pop(place)
        try:
            work.wait()
            check()
        except Exception as error:
            raise AssertionError(f"step {number}: {self.programme.steps[number]}") from error


@dataclass(frozen=True)
class Call:
    """How a step is said to torch.distributed."""

    group: Any
    step: Step
    number: int
    member: int
    members: int

    def begin(self, inputs: Tensors, outputs: Tensors) -> Any:
        """The Work of an asynchronous call; None when it is done, or not for this member."""
        step = self.step
        late: dict[str, Any] = {"group": self.group, "async_op": not step.waits}
        root = {"group_src" if step.kind in ("broadcast", "scatter") else "group_dst": self.root}
        match step.kind:
            case "barrier":
                return dist.barrier(**late)
            case "message":
                return self._message(inputs, outputs)
            case "broadcast":
                return dist.broadcast(inputs[0], **root, **late)
            case "all_gather":
                return dist.all_gather(outputs, inputs[0], **late)
            case "all_gather_into_tensor":
                return dist.all_gather_into_tensor(outputs[0], inputs[0], **late)
            case "gather":
                return dist.gather(inputs[0], outputs or None, **root, **late)
            case "scatter":
                return dist.scatter(outputs[0], inputs or None, **root, **late)
            case "all_to_all":
                return dist.all_to_all(outputs, inputs, **late)
            case "all_to_all_single":
                return self._all_to_all_single(inputs[0], outputs[0], late)
        return self._reduction(inputs, outputs, late)

    @property
    def root(self) -> int:
        return self.step.root % self.members

    def _reduction(self, inputs: Tensors, outputs: Tensors, late: dict[str, Any]) -> Any:
        step = self.step
        op: Any = getattr(dist.ReduceOp, step.reduction)
        if step.reduction == "PREMUL_SUM":
            op = dist._make_nccl_premul_sum(FACTOR)
        match step.kind:
            case "all_reduce" if step.direct:
                options = dist.AllreduceOptions()
                options.reduceOp = op
                return self.group.allreduce(inputs, options)
            case "all_reduce":
                return dist.all_reduce(inputs[0], op, **late)
            case "all_reduce_coalesced":
                return dist.all_reduce_coalesced(inputs, op, **late)
            case "reduce":
                return dist.reduce(inputs[0], group_dst=self.root, op=op, **late)
            case "reduce_scatter":
                return dist.reduce_scatter(outputs[0], inputs, op, **late)
        assert step.kind == "reduce_scatter_tensor"
        return dist.reduce_scatter_tensor(outputs[0], inputs[0], op, **late)

    def _all_to_all_single(
        self, source: torch.Tensor, target: torch.Tensor, late: dict[str, Any]
    ) -> Any:
        if self.step.seed % 2 == 0:
            return dist.all_to_all_single(target, source, **late)
        rows = self.step.shape[0] if self.step.shape else 1
        out = [_rows(self.step, self.member, t, rows) for t in range(self.members)]
        into = [_rows(self.step, s, self.member, rows) for s in range(self.members)]
        return dist.all_to_all_single(target, source, into, out, **late)

    def _message(self, inputs: Tensors, outputs: Tensors) -> Any:
        """Several messages with one tag keep their order; from any source the tag must be alone."""
        from_any = self.step.seed % 3 == 0
        where = {"group": self.group, "tag": 100 + self.number if from_any else self.step.seed % 2}
        if inputs:
            return dist.isend(inputs[0], group_dst=_target(self.step, self.members), **where)
        if not outputs:
            return None
        if from_any:
            return dist.irecv(outputs[0], **where)
        return dist.irecv(outputs[0], group_src=self.root, **where)
