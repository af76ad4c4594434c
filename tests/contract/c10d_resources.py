"""What a process holds, to see what operations leave behind."""

from __future__ import annotations

import gc
import os

PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def resources() -> dict[str, int]:
    """Descriptors, threads, hpcore's mapped files, resident bytes of this process."""
    gc.collect()
    with open("/proc/self/maps") as maps:
        mapped = sum("/memfd:hpcore" in line for line in maps)
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * PAGE_BYTES
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "mapped": mapped,
        "resident": resident,
    }
