"""Gradients of a step: one native reduction for each dtype over the gradients where they lie.
 One thread. Nothing is flattened or copied in Python: the communicator gathers lists of (address,
elements).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hpcore.errors import InvalidArgument, Unsupported
from hpcore.layout import same_layout
from hpcore.sharding import local_of

STEP_TIMEOUT_S = 86_400.0
"""A step's collectives wait for as long as the others compute: how long is too long is the agent's
to judge, which then
revokes the generation."""


class Gradients:
    """The gradients of a job's parameters, in a fixed order; those of replicated ones it sums."""

    exact = False

    def __init__(self) -> None:
        self.names: list[str] = []
        self.parameters: list[Tensor] = []
        self.reduced: list[Tensor] = []
        """Parameters whose gradients come out of backward summed over ranks."""
        self._known: set[int] = set()

    def add(self, name: str, parameter: Tensor) -> None:
        """Takes a parameter in, a tied one once."""
        if id(parameter) not in self._known:
            self._known.add(id(parameter))
            self.names.append(name)
            self.parameters.append(parameter)

    def add_reduced(self, parameters: Sequence[Tensor]) -> None:
        """Takes parameters in whose gradients others sum."""
        self.reduced += parameters
        self._known |= {id(parameter) for parameter in parameters}

    def check_covers(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises InvalidArgument for a parameter whose gradient is not summed over ranks."""
        for number, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                if parameter.requires_grad and id(parameter) not in self._known:
                    raise InvalidArgument(
                        f"parameter {index} of group {number} of {type(optimizer).__name__} "
                        "belongs to no replicated module: its gradient would differ between "
                        "ranks; call job.replicate(module), or job.shard(module) after fully_shard"
                    )

    def clear(self) -> None:
        """Drops all gradients."""
        for parameter in [*self.parameters, *self.reduced]:
            parameter.grad = None

    def prepare(self) -> None:
        """All parameters are there: the loop begins."""

    def end_micro_batch(self) -> None:
        """Called after each micro-batch: the next one's gradients are added where these lie."""

    def unfit(self) -> float:
        """How `reduce` is to be told of what lies elsewhere: nothing does."""
        return 0.0

    def flags(self) -> list[float]:
        """1.0 for each parameter that has a gradient here, else 0.0."""
        return [0.0 if p.grad is None else 1.0 for p in self.parameters]

    def reduce(self, communicator: Any, holders: Sequence[float], unfit: float = 0.0) -> None:
        """Sums the gradients over ranks, in place. `holders`: on how many ranks each parameter has
        one. `unfit`: the ranks' sum of unfit().

        A parameter with a gradient nowhere keeps None; a rank without one adds zeros. Blocks until
        all ranks came. Raises RosterChanged, Unsupported (sparse gradients).
        """
        lists: dict[torch.dtype, list[tuple[int, int]]] = {}
        for index in range(len(self.parameters)):
            if holders[index] <= 0:
                continue
            gradient = self.lying(index)
            buffers = lists.get(gradient.dtype)
            if buffers is None:
                buffers = lists[gradient.dtype] = []
            buffers.append((gradient.data_ptr(), gradient.numel()))
        for dtype, buffers in lists.items():
            communicator.all_reduce(buffers, str(dtype)[6:], "sum", STEP_TIMEOUT_S)

    def lying(self, index: int) -> Tensor:
        """The gradient of a parameter, zeros if it has none, lying in memory as the parameter."""
        parameter = self.parameters[index]
        gradient = parameter.grad
        if (
            gradient is not None
            and gradient.layout is torch.strided
            and gradient.is_contiguous()
            and parameter.is_contiguous()
        ):
            return gradient
        return self._dense_gradient(index)

    def _dense_gradient(self, index: int) -> Tensor:
        """The gradient with the parameter's own layout, so that it lies alike on all ranks."""
        parameter = self.parameters[index]
        gradient = parameter.grad
        if gradient is None:
            gradient = parameter.grad = torch.zeros_like(
                parameter, memory_format=torch.preserve_format
            )
        elif gradient.layout is not torch.strided:
            raise Unsupported(
                f"{self.names[index]} has a {gradient.layout} gradient; only dense gradients are "
                "summed: use sparse=False"
            )
        elif not same_layout(gradient, parameter):
            fitting = torch.empty_like(parameter, memory_format=torch.preserve_format)
            gradient = parameter.grad = fitting.copy_(gradient)
        return gradient

    def watch(self, action: Callable[[], None], places: int) -> list[Any]:
        """Calls `action` about `places` times in each backward; returns handles with remove().

        Parameters' own hooks, not modules': they leave a compiled forward as it is.
        """
        apart = max(1, len(self.parameters) // places)
        return [
            p.register_post_accumulate_grad_hook(lambda _: action())  # type: ignore[no-untyped-call]
            for p in self.parameters[apart // 2 :: apart]
            if p.requires_grad
        ]

    def hook(self, action: Callable[[], None]) -> Any:
        """Calls `action` in the middle of each backward, until the handle's remove()."""
        middle = [p for p in [*self.parameters, *self.reduced] if p.requires_grad]
        return middle[len(middle) // 2].register_post_accumulate_grad_hook(lambda _: action())  # type: ignore[no-untyped-call]


def parameters_of(optimizers: Sequence[Any]) -> list[Tensor]:
    """All parameters of some optimizers."""
    return [p for o in optimizers for group in o.param_groups for p in group["params"]]


def scale_gradients(parameters: Sequence[Tensor], factor: float) -> None:
    """As clip_grad_norm_ does: never up. A norm that is not finite makes gradients so."""
    if not factor >= 1.0:
        for parameter in parameters:
            if parameter.grad is not None:
                local_of(parameter.grad).mul_(factor)
