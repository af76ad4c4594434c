"""Durable checkpoints: the last resort, written by torch.distributed.checkpoint beside next steps.

A checkpoint is a folder `step-<n>`; it counts once its `.metadata` is there, which is written last,
by rename. Sharded tensors are in it as DTensors under their own names: other programmes, on other
meshes, can read it. Besides, each rank's manifest. One thread, apart from the writing one; `save`
copies the state first, so that nothing needs to wait for the disk.
"""

from __future__ import annotations

import re
import shutil
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcore.errors import NotFound
from hpcore.manifest import install, manifest_of
from hpcore.plain import decode, encode
from hpcore.tracked import Capture, TrackedState

KEPT = 2
_NAME = re.compile(r"step-(\d+)")


class Checkpoints:
    """The checkpoints of one job in `folder`."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._thread: threading.Thread | None = None

    def steps(self) -> list[int]:
        """The steps that are whole, in order."""
        found = [
            int(match[1])
            for path in self._folder.glob("step-*")
            if (match := _NAME.fullmatch(path.name)) and (path / ".metadata").exists()
        ]
        return sorted(found)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or is to be."""
        return self._folder / f"step-{step:09d}"

    # --- writing ------------------------------------------------------------------------------

    def save(
        self, rank: int, step: int, state: tuple[Capture, Capture], more: Any, group: Any
    ) -> None:
        """Copies the state and starts to write it; waits first until an older one is written.

        All ranks that write must do so for the same steps: it takes collectives.

        Args:
            state: settled and fluid.
            more: plain values of this rank.
            group: a process group of all ranks for this alone; None: only this rank writes.
        """
        self.settle()
        settled, fluid = state
        manifest = {**manifest_of(settled, fluid), "more": more}
        text = bytearray(encode(manifest))
        tensors: dict[str, Tensor] = {}
        for prefix, captured in (("settled", settled), ("fluid", fluid)):
            for name, whole in zip(captured.names, captured.wholes, strict=True):
                tensors[f"{prefix}/{name}"] = whole.detach().clone()
        tensors[f"manifest/{rank}"] = torch.frombuffer(text, dtype=torch.uint8)
        self._thread = threading.Thread(
            target=self._write, args=(rank, step, tensors, group), name="hpcore-checkpoint"
        )
        self._thread.start()

    def settle(self) -> None:
        """Waits for the checkpoint that is being written."""
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _write(self, rank: int, step: int, tensors: dict[str, Tensor], group: Any) -> None:
        from torch.distributed.checkpoint.state_dict_saver import save

        target = self.path(step)
        try:
            target.mkdir(parents=True, exist_ok=True)
            save(tensors, checkpoint_id=target, process_group=group, no_dist=group is None)
        except Exception as error:  # of a generation that ended meanwhile, too
            if rank == 0:
                words = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"hpcore: no checkpoint of step {step}: {words}", file=sys.stderr, flush=True)
            return
        if rank == 0:
            for old in self.steps()[:-KEPT]:
                shutil.rmtree(self.path(old), ignore_errors=True)

    # --- reading ------------------------------------------------------------------------------

    def load(self, rank: int, step: int, state: TrackedState) -> tuple[Any, int]:
        """The state becomes that of the checkpoint; returns `more` of this rank, and bytes."""
        manifest = self._manifest(rank, step)
        names = [
            f"{prefix}/{spec[0]}"
            for prefix in ("settled", "fluid")
            for spec in manifest[prefix]["specs"]
        ]

        def fill(tensors: list[Tensor]) -> int:
            wanted = {n: t.detach() for n, t in zip(names, tensors, strict=True)}
            self._read(step, wanted)
            return sum(tensor.nbytes for tensor in tensors)

        return manifest["more"], install(state, manifest, fill, wholes=True)

    def _manifest(self, rank: int, step: int) -> Any:
        from torch.distributed.checkpoint.filesystem import FileSystemReader

        known = FileSystemReader(self.path(step)).read_metadata().state_dict_metadata
        size = getattr(known.get(f"manifest/{rank}"), "size", None)
        if size is None:
            raise NotFound(
                f"{self.path(step)} holds nothing for rank {rank}: it was written by fewer ranks; "
                "load it with torch.distributed.checkpoint, or start with as many as then"
            )
        text = torch.empty(size, dtype=torch.uint8)
        self._read(step, {f"manifest/{rank}": text})
        return decode(bytes(text.numpy()))

    def _read(self, step: int, tensors: dict[str, Tensor]) -> None:
        from torch.distributed.checkpoint.state_dict_loader import load

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that no other rank is asked: so it is
            load(dict(tensors), checkpoint_id=self.path(step), no_dist=True)
