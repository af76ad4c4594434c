"""Memory for results of `dataset.map(..., cache="node")`: the agent's, because it outlives the
ranks. A ring: what nobody wrote takes no memory, and it never takes more than its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcore import _core

STORE_KEY = "data-cache"
"""Key of the node's store under which the agent says which of its descriptors the memory is."""

_LEAST, _MOST = 64 << 20, 64 << 30


def make_data_cache(available_bytes: int) -> _core.NodeCache:
    """A ring of an eighth of the memory that is available; gone with the agent."""
    from hpcore import _core

    return _core.NodeCache.create(min(max(available_bytes // 8, _LEAST), _MOST))
