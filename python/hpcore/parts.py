"""The parts of tracked objects: how each kind is taken apart into a plain tree and tensors, and
made equal to such a pair.
 A part is *settled* if only `commit` changes it (`ModuleParameters`, `OptimizerState`) or *fluid*
if a forward may change it (all others). `capture` shares its tensors with the live state; `restore`
takes over those that it is given. One thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hpcore.errors import MismatchError, Unsupported
from hpcore.layout import check_tensor
from hpcore.plain import Collector, join, split, write_back
from hpcore.sharding import local_of


class Part(Protocol):
    """Some state of a tracked object. `name` is the start of the names of its tensors."""

    name: str

    def capture(self, into: Collector) -> Any:
        """The plain tree; tensors go to `into`, shared with the live state."""

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        """Makes the live state equal to the pair; takes `tensors` over."""


class ModuleParameters:
    """Parameters of a module, tied ones once."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.parameters = [(f"{name}.{key}", p) for key, p in module.named_parameters()]
        for key, parameter in self.parameters:
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise Unsupported(f"{key} has no shape yet: run one forward before tracking")
            check_tensor(key, parameter)

    def capture(self, into: Collector) -> Any:
        return [into.add(key, parameter) for key, parameter in self.parameters]

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        for (key, parameter), leaf in zip(self.parameters, tree, strict=True):
            if tensors[leaf.index] is not parameter:
                raise MismatchError(f"parameter {key} was replaced since it was tracked")


class ModuleBuffers:
    """Buffers of a module, looked up at each capture: a forward may replace them."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self._places = [
            (f"{name}.{prefix}.{key}" if prefix else f"{name}.{key}", owner, key)
            for prefix, owner in module.named_modules()
            for key in owner._buffers
        ]
        for path, owner, key in self._places:
            buffer = owner._buffers[key]
            if buffer is not None:
                check_tensor(path, buffer)

    def places(self) -> Iterator[tuple[str, nn.Module, str, Tensor | None]]:
        """(name, owner, key, buffer) in a fixed order; a buffer may be None."""
        for path, owner, key in self._places:
            yield path, owner, key, owner._buffers[key]

    def capture(self, into: Collector) -> Any:
        leaves: list[Any] = []
        for path, owner, key in self._places:
            buffer = owner._buffers[key]
            leaves.append(None if buffer is None else into.add(path, buffer))
        return leaves

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        for (_, owner, key), leaf in zip(self._places, tree, strict=True):
            wanted = None if leaf is None else tensors[leaf.index]
            if owner._buffers[key] is not wanted:
                owner._buffers[key] = wanted


def _by_key(item: tuple[Any, Any]) -> str:
    return str(item[0])


class OptimizerState:
    """What an optimizer keeps for each parameter, made lazily or not."""

    def __init__(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self.name = f"{name}.state"
        self.optimizer = optimizer

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def capture(self, into: Collector) -> Any:
        state = self.optimizer.state
        return {
            index: split(dict(sorted(state[p].items(), key=_by_key)), f"{self.name}.{index}", into)
            for index, p in enumerate(self._parameters())
            if p in state
        }

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        state = self.optimizer.state
        for index, parameter in enumerate(self._parameters()):
            if index in tree:
                state[parameter] = join(tree[index], tensors)
            else:
                state.pop(parameter, None)


class OptimizerGroups:
    """Learning rates and the like, which a scheduler may change at any time."""

    def __init__(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self.name = f"{name}.groups"
        self.optimizer = optimizer

    def capture(self, into: Collector) -> Any:
        return [
            split({k: v for k, v in group.items() if k != "params"}, f"{self.name}[{i}]", into)
            for i, group in enumerate(self.optimizer.param_groups)
        ]

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        for group, values in zip(self.optimizer.param_groups, tree, strict=True):
            parameters = group["params"]
            group.clear()
            group.update(params=parameters, **join(values, tensors))


class Stateful:
    """An object with state_dict and load_state_dict: a scheduler, a gradient scaler, one of the
    user's."""

    def __init__(self, name: str, holder: Any) -> None:
        self.name = name
        self.holder = holder

    def capture(self, into: Collector) -> Any:
        return split(self.holder.state_dict(), self.name, into)

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        self.holder.load_state_dict(join(tree, tensors))
        if isinstance(self.holder, torch.amp.GradScaler):
            # Not in its state_dict: a step that ended between unscale_ and update left it there.
            self.holder._per_optimizer_states.clear()


class Container:
    """A dict, list, set, deque or tensor of the user's, restored in place."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def capture(self, into: Collector) -> Any:
        if isinstance(self.value, dict):  # a defaultdict keeps its factory: it is restored in place
            return split(dict(self.value), self.name, into)
        return split(self.value, self.name, into)

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        fresh = join(tree, tensors)
        if isinstance(self.value, Tensor):
            if fresh is not self.value:
                with torch.no_grad():
                    local_of(self.value).set_(local_of(fresh))  # type: ignore[call-overload]
            return
        write_back(self.value, fresh)


class GeneratorState:
    """A torch.Generator of the user's."""

    def __init__(self, name: str, generator: torch.Generator) -> None:
        self.name = name
        self.generator = generator

    def capture(self, into: Collector) -> Any:
        return bytes(self.generator.get_state().numpy())

    def restore(self, tree: Any, tensors: Sequence[Tensor]) -> None:
        self.generator.set_state(torch.frombuffer(bytearray(tree), dtype=torch.uint8))


def parts_of(name: str, holder: Any) -> tuple[list[Part], list[Part]]:
    """The settled and the fluid parts of an object. Raises Unsupported, with the name."""
    if isinstance(holder, nn.Module):
        return [ModuleParameters(name, holder)], [ModuleBuffers(name, holder)]
    if isinstance(holder, torch.optim.Optimizer):
        return [OptimizerState(name, holder)], [OptimizerGroups(name, holder)]
    if isinstance(holder, torch.Generator):
        return [], [GeneratorState(name, holder)]
    if callable(getattr(holder, "state_dict", None)) and callable(
        getattr(holder, "load_state_dict", None)
    ):
        return [], [Stateful(name, holder)]
    if isinstance(holder, Tensor | dict | list | set | deque):
        return [], [Container(name, holder)]
    raise Unsupported(
        f"{name} is a {type(holder).__module__}.{type(holder).__qualname__}, which cannot be "
        "tracked: give a module, an optimizer, a tensor, a dict, list, set or deque of plain "
        "values, or an object with state_dict() and load_state_dict()"
    )
