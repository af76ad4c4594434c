"""Reading: samples out of a mapped ``.hpd`` file."""

from __future__ import annotations

import mmap
import os
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hpcore import _core
from hpcore.dataset.info import describe
from hpcore.dataset.output_ring import OutputRing
from hpcore.dataset.samples import Samples, reading_code
from hpcore.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy
    import torch

    from hpcore.dataset.packing import Boundaries

Permutation = _core.Permutation
"""``Permutation(count, seed, epoch)``: ``p(k)`` is the sample at position k."""

MODES = ("auto", "map", "read")


class MappedDataset(Samples):
    """A ``.hpd`` file's token stream as samples of ``sequence + 1`` tokens, ``sequence`` apart.

    Works as a map-style ``torch.utils.data`` dataset and can be pickled (it is opened again by its
    path). Thread-safe. A file that is cut short while it is open raises CorruptData at the next
    batch; one that is replaced by another stays what it was.

    Args:
        path: the file, or a URL that fsspec knows: it is fetched once per node.
        sequence: tokens a sample, less the one that is only a target.
        verify: check each block of 256 KiB against its checksum when the node first touches it.
        field: name of the stream; None: the first.
        dtype: of what is given: "int64", "int32", or "stored": as it is in the file.
        mode: "map" copies out of the mapping; "read" takes no page tables, for files that are large
            against the memory; "auto" chooses by size.
        threads: for batches above 2 MiB and for reading ahead; None: up to 4, as cores allow.
        cache_dir: where files of URLs are kept; None: see `hpcore.dataset.remote`.

    Raises CorruptData, NotFound, InvalidArgument (no whole sample in the file).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sequence: int = 128,
        verify: bool = True,
        *,
        field: str | None = None,
        dtype: str = "int64",
        mode: str = "auto",
        threads: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        if sequence < 1:
            raise InvalidArgument(f"sequence must be at least 1 token, not {sequence}")
        self.path, self.sequence = os.fspath(path), sequence
        self._options = {
            **{"verify": verify, "field": field, "dtype": dtype, "mode": mode},
            **{"threads": threads, "cache_dir": cache_dir},
        }
        self._file: Any = open_file(self.path, verify, cache_dir)
        self.info = describe(self.path, self._file.info())
        self.field = self._stream(field)
        self._reader: Any = _core.SampleReader(
            *(self._file, self.field, sequence, sequence + 1),
            *(is_mapped(mode, self.info.file_bytes), thread_count(threads)),
        )
        self._length: int = self._reader.samples
        if self._length == 0:
            raise InvalidArgument(
                f"dataset {self.path} has {self.info.tokens} tokens: not one sample of "
                f"{sequence} + 1; choose a shorter sequence"
            )
        self.dtype, self._item_bytes = self._width(dtype)
        self._ring = OutputRing()

    def _stream(self, name: str | None) -> int:
        for number, field in enumerate(self.info.fields):
            if field.kind == "tokens" and name in (None, field.name):
                return number
        there = ", ".join(f"{field.name} ({field.kind})" for field in self.info.fields)
        what = "no stream of tokens" if name is None else f"no stream {name!r}"
        raise InvalidArgument(
            f"dataset {self.path} holds {what}; its fields: {there}. hpcore.dataset.MappedRecords "
            "reads rows"
        )

    def _width(self, dtype: str) -> tuple[torch.dtype, int]:
        import torch

        stored = self.info.fields[self.field]
        name = stored.dtype if dtype == "stored" else dtype
        if name not in {"int64", "int32", stored.dtype}:
            raise InvalidArgument(
                f"dtype {dtype!r} is not one of int64, int32, stored (here {stored.dtype})"
            )
        if name == "int32" and stored.vocabulary > 1 << 31:
            raise InvalidArgument(f"tokens of dataset {self.path} do not fit int32: use int64")
        found: torch.dtype = getattr(torch, name)
        return found, found.itemsize

    @property
    def vocabulary(self) -> int:
        """Every token is below this."""
        return self.info.fields[self.field].vocabulary

    @property
    def uuid(self) -> str:
        """Made from the content: equal for equal files."""
        return self.info.uuid

    @property
    def identity(self) -> bytes:
        """The uuid's 16 bytes."""
        return uuid.UUID(self.info.uuid).bytes

    @property
    def reading(self) -> int:
        """Field and sequence, as 32 bits."""
        return reading_code("tokens", self.field, self.sequence)

    @property
    def mode(self) -> str:
        """How the file is read: "map" or "read"."""
        return "map" if is_mapped(str(self._options["mode"]), self.info.file_bytes) else "read"

    def __len__(self) -> int:
        return self._length

    # --- reading ------------------------------------------------------------------------------

    def batch(self, indices: Sequence[int], out: torch.Tensor | None = None) -> torch.Tensor:
        """Samples as ``[len(indices), sequence + 1]``, in that order. Blocks on reads only.

        `out` is filled and returned if given: a contiguous CPU tensor of that shape and dtype.
        Else the memory is the reader's, used again once nobody has any of it; not resizable.
        Raises InvalidArgument (index out of range, `out`), CorruptData.
        """
        out = self._target(len(indices), out)
        self._opened().gather(indices, out.data_ptr(), self._item_bytes)
        return out

    def read(
        self,
        seed: int,
        first: int,
        count: int,
        shuffle: bool = True,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The batch at positions [first, first + count) of the order; `out` as in `batch`."""
        out = self._target(count, out)
        self._opened().gather_order(seed, first, count, shuffle, out.data_ptr(), self._item_bytes)
        return out

    def _target(self, count: int, out: torch.Tensor | None) -> torch.Tensor:
        if out is None:
            return self._ring.take((count, self.sequence + 1), self.dtype)
        wanted = (count, self.sequence + 1)
        sound = out.dtype == self.dtype and out.device.type == "cpu" and out.is_contiguous()
        if not sound or tuple(out.shape) != wanted:
            raise InvalidArgument(
                f"out must be a contiguous {self.dtype} tensor {list(wanted)} on the CPU, not "
                f"{out.dtype} {list(out.shape)} on {out.device}"
            )
        return out

    def samples_at(self, seed: int, first: int, count: int, shuffle: bool = True) -> list[int]:
        """See `Samples.samples_at`."""
        found: list[int] = self._opened().order(seed, first, count, shuffle)
        return found

    def will_need(self, indices: Sequence[int]) -> int:
        """See `Samples.will_need`."""
        return int(self._opened().will_need(indices))

    def announce(self, seed: int, first: int, count: int, shuffle: bool = True) -> int:
        """See `Samples.announce`."""
        return int(self._opened().announce(seed, first, count, shuffle))

    def view(self, index: int) -> numpy.ndarray[Any, Any]:
        """One sample where it lies: a read-only array of the stored dtype, nothing is copied.

        Its memory is a private mapping: whoever writes to it all the same (a torch tensor made from
        it can) changes a page of this process and neither the file nor another reader. It stays
        valid as long as it is referenced. A file that is cut short under a view is a SIGBUS when it
        is touched there: `batch` has no such limit.
        """
        import numpy

        reader = self._opened()
        offset, size = reader.check(index), reader.sample_bytes
        begin = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        memory = mmap.mmap(reader.fd, offset - begin + size, access=mmap.ACCESS_COPY, offset=begin)
        kind = numpy.dtype(self.info.fields[self.field].dtype)
        array = numpy.frombuffer(memory, kind, size // kind.itemsize, offset - begin)
        array.flags.writeable = False
        return array

    def boundaries(self, indices: Sequence[int]) -> Boundaries:
        """Where documents begin and end within these samples: see `hpcore.dataset.packing`."""
        from hpcore.dataset.packing import boundaries

        self._opened()
        return boundaries(self._file, self.field, indices, self.sequence)

    def order(self, seed: int, epoch: int) -> _core.Permutation:
        """The permutation of one epoch: position -> sample."""
        return Permutation(self._length, seed, epoch)

    # --- life ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Unmaps the file when the last reader is done. Twice is fine."""
        self._file = self._reader = None

    def _opened(self) -> Any:
        if self._reader is None:
            raise InvalidArgument(f"dataset {self.path} is closed")
        return self._reader

    def __enter__(self) -> MappedDataset:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "sequence": self.sequence, **self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"MappedDataset({self.path!r}, sequence={self.sequence}, samples={self._length})"


def open_file(path: str, verify: bool, cache_dir: str | None) -> Any:
    """The file, fetched before if `path` is a URL."""
    if "://" in path:
        from hpcore.dataset.remote import fetch

        path = str(fetch(path, cache_dir))
    return _core.DatasetFile(path, verify)


def is_mapped(mode: str, file_bytes: int) -> bool:
    """Whether a file of this size is read through its mapping. Raises InvalidArgument."""
    if mode not in MODES:
        raise InvalidArgument(f"mode {mode!r} is not one of {', '.join(MODES)}")
    if mode != "auto":
        return mode == "map"
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return bool(_core.maps_file(file_bytes, memory_bytes))


def thread_count(threads: int | None) -> int:
    """What was asked for, else up to 4 of this rank's share of the cores."""
    if threads is not None:
        if threads < 1:
            raise InvalidArgument(f"threads must be at least 1, not {threads}")
        return threads
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(4, len(os.sched_getaffinity(0)) // max(ranks, 1)))
