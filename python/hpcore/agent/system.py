"""The few calls into libc that Python has no name for. Linux only; thread-safe; no state."""

from __future__ import annotations

import ctypes
import ctypes.util
import signal

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_PTRACER = 0x59616D61


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
