"""The shadow: what a forward may change, as it was at the last step boundary.
 A discarded step gets it back, and newcomers are served from it while a forward is under way. One
thread; the native state source reads the clones, which change at boundaries only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpcore.layout import same_layout
from hpcore.sharding import Sharding, is_dtensor, local_of
from hpcore.tracked import Capture, TrackedState, capture

ALWAYS_COPIED_BYTES = 64 << 10
"""Up to this size a tensor is copied at every boundary, not only when its version moved:
`x.data.mul_()` and batch norm's
running statistics move no version."""


@dataclass
class _Kept:
    clone: Tensor
    live: Tensor
    version: int
    whole: Tensor  # the DTensor that `live` is the local part of, else `live`


def _still_fits(kept: _Kept, tensor: Tensor) -> bool:
    if kept.live is tensor:
        return kept.clone.shape == tensor.shape
    return same_layout(kept.clone, tensor)


def _same_place(kept: _Kept, own: Tensor) -> bool:
    whole = kept.whole
    if whole is not own and is_dtensor(whole):
        same = is_dtensor(own) and Sharding.of("", own) == Sharding.of("", whole)
    else:
        same = True
    return same and same_layout(kept.clone, local_of(own))


class Shadow:
    """Copies of the fluid tensors and trees of tracked state."""

    def __init__(self, state: TrackedState) -> None:
        self._state = state
        self._kept: dict[str, _Kept] = {}
        self._trees: list[object] = []
        self._names: list[str] = []
        self._dirty: set[int] = set()
        self._restless = {
            path
            for part in state.buffers
            for path, owner, _, _ in part.places()
            if isinstance(owner, nn.modules.batchnorm._NormBase)
        }

    def captured(self) -> Capture:
        """The boundary's trees, with the clones as tensors."""
        kept = [self._kept[name] for name in self._names]
        wholes = [k.clone if k.whole is k.live else k.whole for k in kept]
        return Capture(list(self._trees), list(self._names), [k.clone for k in kept], wholes)

    def touch(self, tensor: Tensor) -> None:
        """Says that memory of this tensor was written behind torch's back."""
        self._dirty.add(id(tensor))

    def changed(self, name: str, tensor: Tensor) -> bool:
        """Whether the tensor may differ from its clone."""
        kept = self._kept.get(name)
        return (
            kept is None
            or kept.live is not tensor
            or id(tensor) in self._dirty
            or name in self._restless
            or kept.version != tensor._version
            or tensor.nbytes <= ALWAYS_COPIED_BYTES
        )

    def refresh(self) -> None:
        """Makes the shadow equal to the live state: a boundary has been reached."""
        now = capture(self._state.fluid)
        kept: dict[str, _Kept] = {}
        clones: list[Tensor] = []
        lives: list[Tensor] = []
        for name, tensor, whole in zip(now.names, now.tensors, now.wholes, strict=True):
            old = self._kept.get(name)
            if old is not None and _still_fits(old, tensor):
                if self.changed(name, tensor):
                    clones.append(old.clone)
                    lives.append(tensor.detach())
                clone = old.clone
            else:
                clone = tensor.detach().clone(memory_format=torch.preserve_format)
            kept[name] = _Kept(clone, tensor, tensor._version, whole)
        if clones:
            with torch.no_grad():
                torch._foreach_copy_(clones, lives)
        self._kept, self._trees, self._names = kept, now.trees, now.names
        self._dirty.clear()

    def restore(self) -> None:
        """Gives the live state back what it was at the last boundary."""
        own = capture(self._state.fluid).wholes_by_name()
        with torch.no_grad():
            wanted = [self._given_back(name, own.get(name)) for name in self._names]
        for part, tree in zip(self._state.fluid, self._trees, strict=True):
            part.restore(tree, wanted)
        now = capture(self._state.fluid)
        for name, tensor, whole in zip(now.names, now.tensors, now.wholes, strict=True):
            clone = self._kept[name].clone
            self._kept[name] = _Kept(clone, tensor, tensor._version, whole)
        self._dirty.clear()

    def give_back(self, name: str, owner: nn.Module, key: str) -> None:
        """Gives one buffer of a module back what it was at the last boundary."""
        kept, live = self._kept.get(name), owner._buffers[key]
        if kept is None:  # there was none
            owner._buffers[key] = None
        elif live is not None and same_layout(kept.clone, live):
            live.detach().copy_(kept.clone)
            self.touch(live)
        else:
            owner._buffers[key] = kept.clone.clone(memory_format=torch.preserve_format)

    def _given_back(self, name: str, own: Tensor | None) -> Tensor:
        kept = self._kept[name]
        clone, live = kept.clone, None if own is None else local_of(own)
        if own is None or live is None or not _same_place(kept, own):
            fresh = clone.clone(memory_format=torch.preserve_format)
            if kept.whole is kept.live:
                return fresh
            whole: Any = kept.whole
            sharding = Sharding.of(name, whole)
            return sharding.wrap(name, fresh, {sharding.mesh: whole.device_mesh})
        if self.changed(name, live):
            live.detach().copy_(clone)
        return own
