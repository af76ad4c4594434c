"""Tracked objects that only pickle can send, where the user asks for it. One thread."""

from __future__ import annotations

import pickle
from typing import Any

from hpcore.errors import InvalidArgument


class Pickled:
    """Lets `Job.track` send an object's attributes with pickle: `job.track(x=hpcore.Pickled(x))`.

    What is unpickled may run any code: it comes from ranks of the same job only. The object is
    restored in place, and pickled at each step's boundary: keep it small.
    """

    def __init__(self, holder: Any) -> None:
        """Raises InvalidArgument if it has no `__dict__`, and what pickle does if it cannot."""
        if not hasattr(holder, "__dict__"):
            raise InvalidArgument(
                f"a {type(holder).__qualname__} has no __dict__: hpcore.Pickled restores an "
                "object's attributes in place; put the value into an attribute or a dict"
            )
        self.holder = holder
        self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """The pickled attributes."""
        return {"pickle": pickle.dumps(vars(self.holder))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replaces the attributes by those that were pickled."""
        fresh = pickle.loads(state["pickle"])
        attributes = vars(self.holder)
        attributes.clear()
        attributes.update(fresh)
