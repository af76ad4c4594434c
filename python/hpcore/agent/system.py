"""The few calls into libc that Python has no name for. Linux only; thread-safe; no state."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import signal
from dataclasses import dataclass

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_PTRACER = 0x59616D61
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SCHED_FLAG_RESET_ON_FORK = 1


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def prctl(option: int, argument: int) -> bool:
    """prctl(2) with one argument; False if the kernel refuses."""
    return bool(_libc().prctl(option, ctypes.c_ulong(argument), 0, 0, 0) == 0)


def die_with_parent() -> None:
    """SIGKILL for this process when its parent (thread) is gone."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def line_buffer_c_stdout() -> None:
    """C's stdout flushes at each line, so that a killed process leaves its last lines."""
    libc = _libc()
    try:
        stdout = ctypes.c_void_p.in_dll(libc, "stdout")
        libc.setlinebuf(stdout)
    except (ValueError, AttributeError):
        pass


def flush_c_streams() -> None:
    """What C code of this process printed."""
    _libc().fflush(None)


@dataclass(frozen=True)
class Urgency:
    """How a thread was scheduled: nice value and slice in ns (0: the kernel's)."""

    nice: int
    slice_ns: int


class _SchedAttr(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def make_urgent(wishes: tuple[Urgency, ...]) -> Urgency | None:
    """Schedules this thread by the first of `wishes` that is permitted; what it forks does not
        inherit it.
     A short slice is no privilege and gets a woken thread onto a busy core sooner (EEVDF, Linux
     6.12
    and newer).
    """
    number = _SYS_SCHED_SETATTR.get(os.uname().machine)
    if number is None:
        return None
    for wish in wishes:
        attributes = _SchedAttr(
            size=ctypes.sizeof(_SchedAttr),
            flags=_SCHED_FLAG_RESET_ON_FORK,
            nice=wish.nice,
            runtime=wish.slice_ns,
        )
        if _libc().syscall(number, 0, ctypes.byref(attributes), 0) == 0:
            return wish
    return None
