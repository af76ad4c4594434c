"""Where a job is in its data, tracked with its state: a state goes on only with the data that it
was made with. Training thread only; lives as long as the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpcore.batches import Batches
from hpcore.dataset.cursor import Cursor
from hpcore.errors import MismatchError

TRACKED_AS = "job.data"
"""No name of a script's: those are identifiers."""


class DataPosition:
    """The 40 bytes of `Cursor`, at each boundary; none if the dataset has no identity (data of the
    script's own), which is then not checked either."""

    def __init__(self, data: Any, batches: Batches, steps_done: Callable[[], int]) -> None:
        self._data, self._batches, self._steps_done = data, batches, steps_done
        known = hasattr(data, "identity") and hasattr(data, "reading")
        self._start = Cursor.of(data, batches.seed) if known else None

    @property
    def layout_text(self) -> str:
        """Equal on ranks that read the same."""
        return "data of the script's" if self._start is None else self._start.to_bytes().hex()

    def state_dict(self) -> dict[str, Any]:
        """Of the boundary after `steps_done` steps."""
        size = self._batches.global_batch
        if self._start is None:
            return {"cursor": b"", "global_batch": size}
        position = self._steps_done() * size
        return {"cursor": self._start.at(position).to_bytes(), "global_batch": size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes nothing over: the position follows from the step. Raises MismatchError if this
        job would not go on with the samples that come next."""
        if self._start is None or not state["cursor"]:
            return
        cursor, size = Cursor.from_bytes(state["cursor"]), state["global_batch"]
        cursor.check(self._data)
        for name, saved, here in (
            ("seed", cursor.seed, self._batches.seed),
            ("global_batch", size, self._batches.global_batch),
        ):
            if saved != here:
                raise MismatchError(
                    f"the state was made with {name} {saved}, this job has {here}, at position "
                    f"{cursor.position} of {self._data!r}: go on with {name}={saved}, or begin "
                    "anew in another checkpoint_dir"
                )
