"""Memory for shadow copies: the agent's, because it outlives the ranks. Sparse: what nobody wrote
is not there.
"""

from __future__ import annotations

import os

REGION_BYTES = 1 << 40
"""Address space of one rank."""

STORE_KEY = "shadow"
"""Key of the node's store under which the agent says which of its descriptors the memory is."""


def make_memory(ranks: int) -> int:
    """A descriptor of memory with a region for each rank; it is gone with the agent."""
    descriptor = os.memfd_create("hpcore-shadow", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, ranks * REGION_BYTES)
    return descriptor
