"""Samples as a function of other samples, computed once per node if that is worth it."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from hpcore import _core
from hpcore.agent.data_cache import STORE_KEY
from hpcore.dataset.samples import Samples
from hpcore.errors import HpcoreError, InvalidArgument
from hpcore.membership.process import this_worker

CACHES = ("", "node")
KEYS = ("sample", "position")


class Computed(Samples):
    """``fn(sample)`` for each sample of another dataset; batches are collated as torch does.

    What `fn` raises is raised where the batch is asked for; a StopIteration, which would end the
    loop around it without a word, becomes a RuntimeError.

    With ``cache="node"`` results are kept in memory that all ranks of the node read. Under
    `hpcore run` it is the agent's: results survive the death of the rank that computed them, so a
    step that is run again takes them from there. Elsewhere it is of the process that called `map`,
    and of those forked from it (DataLoader's workers). When the ring is full the oldest results
    make room; what is not there is computed again.

    Args:
        source: where samples come from.
        fn: takes a sample; gives tensors, arrays, numbers, or dicts, lists and tuples of them. With
            ``key="position"`` it also takes the position, for randomness keyed by it.
        cache: "" or "node".
        key: what results are kept by: "sample", where fn depends on the sample alone, or
            "position", the place in the order over all epochs, where each epoch is to differ.
        version: part of the key in the cache: change it when fn changes within a job.
        cache_bytes: size of the ring where there is no agent.
    """

    def __init__(
        self,
        source: Samples,
        fn: Callable[..., Any],
        *,
        cache: str = "",
        key: str = "sample",
        version: str = "",
        cache_bytes: int = 1 << 30,
    ) -> None:
        if cache not in CACHES or key not in KEYS:
            raise InvalidArgument(f"cache {cache!r} must be one of {CACHES}, key {key!r} of {KEYS}")
        self.source, self.fn, self.key, self.version = source, fn, key, version
        self.name = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', repr(fn))}"
        self._place = ""
        self._cache: Any = None
        if cache:
            self._cache, self._place = open_cache(cache_bytes)
        told = f"{source.identity.hex()} {source.reading} {self.name} {key} {version}"
        self._space = int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "little")

    def __len__(self) -> int:
        return len(self.source)

    @property
    def identity(self) -> bytes:
        """That of the source."""
        return self.source.identity

    @property
    def reading(self) -> int:
        """The source's: a function does not change which sample stands where."""
        return self.source.reading

    @property
    def counters(self) -> dict[str, int]:
        """Of the node's cache: hits, misses, spoiled, kept, refused; empty without one."""
        return dict(self._cache.counters()) if self._cache is not None else {}

    def samples_at(self, seed: int, first: int, count: int, shuffle: bool = True) -> list[int]:
        """See `Samples.samples_at`."""
        return self.source.samples_at(seed, first, count, shuffle)

    def will_need(self, indices: Sequence[int]) -> int:
        """See `Samples.will_need`."""
        return self.source.will_need(indices)

    def batch(self, indices: Sequence[int]) -> Any:
        """These samples, collated. With ``key="position"`` they need a position: use a loader."""
        if self.key == "position":
            raise InvalidArgument(
                f"{self!r} is keyed by position: read it through a loader, a Job or batch_at"
            )
        return self._collated(indices, list(indices))

    def batch_at(self, indices: Sequence[int], first: int) -> Any:
        """As `batch`; the samples stand at positions `first` and following."""
        keys = list(indices)
        if self.key == "position":
            keys = list(range(first, first + len(indices)))
        return self._collated(indices, keys)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self!r}")
        if self.key == "position":
            return self.batch([index])
        return self.results([index], [index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """What torch's DataLoader calls for a whole batch: results, not collated."""
        if self.key == "position":
            return [self.batch(indices)]
        return self.results(indices, list(indices))

    def _collated(self, indices: Sequence[int], keys: list[int]) -> Any:
        from torch.utils.data import default_collate

        return default_collate(self.results(indices, keys))

    def results(self, indices: Sequence[int], keys: list[int]) -> list[Any]:
        """What fn gives for these samples, from the cache where it is there."""
        found: list[Any] = [None] * len(indices)
        missing = []
        for place, key in enumerate(keys):
            kept = None if self._cache is None else self._cache.get(self._space, key)
            if kept is None:
                missing.append(place)
            else:
                found[place] = decode(kept)
        if missing:
            samples = self.source.__getitems__([indices[place] for place in missing])
            for place, sample in zip(missing, samples, strict=True):
                found[place] = self._compute(sample, indices[place], keys[place])
                if self._cache is not None:
                    self._cache.put(self._space, keys[place], encode(found[place]))
        return found

    def _compute(self, sample: Any, index: int, key: int) -> Any:
        where = f"{self.name} failed for sample {index} ({self.key} {key}) of {self.source!r}"
        try:
            return self.fn(sample, key) if self.key == "position" else self.fn(sample)
        except StopIteration as error:
            raise RuntimeError(f"{where}: it raised StopIteration") from error
        except Exception as error:
            if hasattr(error, "add_note"):  # Python 3.11 on
                error.add_note(where)
            raise

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._place:
            self._cache = attach_cache(self._place)

    def __repr__(self) -> str:
        return f"{self.source!r}.map({self.name})"


# --- the memory -------------------------------------------------------------------------------


def open_cache(cache_bytes: int) -> tuple[Any, str]:
    """(the node's cache, where another process finds it): the agent's, else one of our own."""
    worker = this_worker()
    if worker is None:
        cache = _core.NodeCache.create(cache_bytes)
        return cache, f"/proc/{os.getpid()}/fd/{cache.fd}"
    number = int(worker.segment.store.get(STORE_KEY, 10.0))
    place = f"/proc/{int(os.environ['HPCORE_AGENT_PID'])}/fd/{number}"
    return _core.NodeCache.attach(os.open(place, os.O_RDWR | os.O_CLOEXEC)), place


def attach_cache(place: str) -> Any:
    """The cache of a pickled view; None, so that all is computed, if its maker is gone."""
    try:
        return _core.NodeCache.attach(os.open(place, os.O_RDWR | os.O_CLOEXEC))
    except (OSError, HpcoreError):
        return None


# --- results as bytes -------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Plain pickle, but for CPU tensors: as their bytes."""

    def reducer_override(self, value: Any) -> Any:
        import torch

        if type(value) is torch.Tensor and value.layout is torch.strided and not value.is_cuda:
            flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
            return _tensor, (flat.numpy().tobytes(), value.dtype, tuple(value.shape))
        return NotImplemented


def _tensor(data: bytes, dtype: Any, shape: tuple[int, ...]) -> Any:
    import torch

    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def encode(value: Any) -> bytes:
    """A result as bytes, for processes of this job."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(value)
    return stream.getvalue()


def decode(data: bytes) -> Any:
    """The reverse."""
    return pickle.loads(data)
