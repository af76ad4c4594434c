"""Plain-value trees: tracked Python state taken apart into values and tensors, sent, and put back;
no pickle.
 A tree holds None, bool, int, float, complex, str, bytes, list, tuple, dict, set and `Leaf`, which
stands for a tensor. `split` copies, so a tree never shares anything mutable with the state it was
taken from. Pure functions.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcore.errors import CorruptData, Unsupported

SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
_MAPPINGS: dict[type, str] = {dict: "d", OrderedDict: "od", Counter: "counter"}
_SEQUENCES: dict[type, str] = {tuple: "t", set: "s", frozenset: "fs", deque: "dq"}
_BULK = 32  # from here on a list of scalars is copied at C speed


@dataclass(frozen=True)
class Leaf:
    """Stands for tensor number `index` of the list that came with the tree."""

    index: int


class Collector:
    """The tensors of trees, by name, in the order in which they were met.

    `tensors` lie in this rank's memory; of a sharded one that is the local part of the tensor in
    `wholes`.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tensors: list[Any] = []
        self.wholes: list[Any] = []
        self._leaves: dict[int, Leaf] = {}

    def add(self, name: str, tensor: Any) -> Leaf:
        """Takes one tensor in, a tied one once; returns what stands for it."""
        local = getattr(tensor, "_local_tensor", None)  # of a DTensor
        if local is None:
            local = tensor
        leaf = self._leaves.get(id(local))
        if leaf is None:
            leaf = self._leaves[id(local)] = Leaf(len(self.tensors))
            self.names.append(name)
            self.tensors.append(local)
            self.wholes.append(tensor)
        return leaf


def split(value: Any, name: str, into: Collector) -> Any:
    """The tree of `value`; its tensors go to `into`.

    Raises Unsupported with the path of what cannot be restored on another rank.
    """
    kind = type(value)
    if kind in SCALARS:
        return value
    if kind is list:
        if len(value) >= _BULK and set(map(type, value)) <= SCALARS:
            return list(value)
        return [split(item, f"{name}[{i}]", into) for i, item in enumerate(value)]
    if kind in _MAPPINGS:
        items = {_key(key, name): split(item, f"{name}.{key}", into) for key, item in value.items()}
        return items if kind is dict else kind(items)
    if kind in _SEQUENCES:
        parts = [split(item, f"{name}[{i}]", into) for i, item in enumerate(value)]
        return deque(parts, value.maxlen) if kind is deque else kind(parts)
    if is_tensor(value):
        return into.add(name, value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):  # torch.Size
        return tuple(split(item, f"{name}[{i}]", into) for i, item in enumerate(value))
    raise Unsupported(
        f"{name} is a {kind.__module__}.{kind.__qualname__}: hpcore restores numbers, strings, "
        "bytes, lists, tuples, dicts, sets, tensors, and objects with state_dict() and "
        "load_state_dict() made of these; track those parts of it, or leave it untracked"
    )


def _key(key: Any, name: str) -> Any:
    if type(key) in SCALARS:
        return key
    if type(key) is tuple and all(type(part) in SCALARS for part in key):
        return key
    raise Unsupported(
        f"{name} has the key {key!r} of type {type(key).__name__}: keys must be numbers, strings, "
        "bytes or tuples of these"
    )


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch.Tensor, without importing torch for values that are none."""
    import torch

    return isinstance(value, torch.Tensor)


def join(tree: Any, tensors: Sequence[Any]) -> Any:
    """A fresh value from a tree and its tensors."""
    kind = type(tree)
    if kind in SCALARS:
        return tree
    if kind is Leaf:
        return tensors[tree.index]
    if kind is list:
        return [join(item, tensors) for item in tree]
    if kind in _MAPPINGS:
        return kind({key: join(item, tensors) for key, item in tree.items()})
    if kind is deque:
        return deque((join(item, tensors) for item in tree), tree.maxlen)
    return kind(join(item, tensors) for item in tree)


def write_back(target: Any, value: Any) -> Any:
    """Makes `target` equal to the fresh `value`, in place where the types are the same; returns
    what now holds it."""
    if isinstance(target, dict) and isinstance(value, dict):
        merged = {
            key: write_back(target[key], item) if key in target else item
            for key, item in value.items()
        }
        target.clear()
        dict.update(target, merged)
        return target
    if type(target) is list and type(value) is list:
        shared = [write_back(old, new) for old, new in zip(target, value, strict=False)]
        target[:] = shared + value[len(shared) :]
        return target
    if isinstance(target, set) and isinstance(value, set):
        target.clear()
        target.update(value)
        return target
    if type(target) is deque and type(value) is deque and target.maxlen == value.maxlen:
        target.clear()
        target.extend(value)
        return target
    return value


def encode(tree: Any) -> bytes:
    """The bytes of a tree; equal trees give equal bytes except for the order of sets."""
    return json.dumps(_to_json(tree), separators=(",", ":")).encode()


def decode(data: bytes) -> Any:
    """The inverse of `encode`. Raises CorruptData."""
    try:
        return _from_json(json.loads(data))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CorruptData(f"not a tree of plain values ({error}): {data[:60]!r}") from error


def _to_json(tree: Any) -> Any:
    kind = type(tree)
    if kind in (bool, int, float, str) or tree is None:
        return tree
    if kind is list:
        return [_to_json(item) for item in tree]
    if kind is dict and all(type(key) is str and not key.startswith("!") for key in tree):
        return {key: _to_json(item) for key, item in tree.items()}
    if kind is Leaf:
        return {"!": "x", "v": tree.index}
    if kind is bytes:
        return {"!": "b", "v": base64.b64encode(tree).decode()}
    if kind is complex:
        return {"!": "c", "v": [tree.real, tree.imag]}
    if kind in _MAPPINGS:
        items = [[_to_json(key), _to_json(item)] for key, item in tree.items()]
        return {"!": _MAPPINGS[kind], "v": items}
    tagged = {"!": _SEQUENCES[kind], "v": [_to_json(item) for item in tree]}
    if kind is deque:
        tagged["n"] = tree.maxlen
    return tagged


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = value.get("!")
    if tag is None:
        return {key: _from_json(item) for key, item in value.items()}
    content = value["v"]
    if tag == "x":
        return Leaf(content)
    if tag == "b":
        return base64.b64decode(content)
    if tag == "c":
        return complex(*content)
    for kind, name in _MAPPINGS.items():
        if tag == name:
            return kind({_from_json(key): _from_json(item) for key, item in content})
    for kind, name in _SEQUENCES.items():
        if tag == name:
            items = [_from_json(item) for item in content]
            return deque(items, value["n"]) if kind is deque else kind(items)
    raise ValueError(f"unknown tag {tag!r}")
