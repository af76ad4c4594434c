"""What a process holds, to see what operations leave behind."""

from __future__ import annotations

import ctypes
import gc
import os


class _MallInfo2(ctypes.Structure):
    """mallinfo2(3): sums over all arenas, in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")
    ) + (
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def resources() -> dict[str, int]:
    """Descriptors, threads, hpcore's mapped files, and bytes that this process holds.

    Allocated bytes and shared ones, not resident ones: glibc keeps the free ends of its threads'
    arenas, the kernel fills holes to make huge pages, and libraries come in as they are used.
    """
    gc.collect()
    with open("/proc/self/maps") as maps:
        mapped = sum("/memfd:hpcore" in line for line in maps)
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _MallInfo2
    found = mallinfo2()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "mapped": mapped,
        "bytes": found.uordblks + found.hblkhd + (int(fields["RssShmem"].split()[0]) << 10),
    }
