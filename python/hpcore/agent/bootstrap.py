"""A worker, from the fork to the end of the user's script. Runs in the worker's main thread.

The template has forked; here the process becomes itself: descriptors, environment, parent-death
signal, place in the node segment. Then the script runs as `__main__`, as `python script.py`
would run it. Whatever leaves the script is mailed to the agent (which shows it once), else
printed.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import random
import signal
import sys
import threading
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcore.agent import system

if TYPE_CHECKING:
    from hpcore import _core

MAIL_SCRIPT_ERROR = 2
MAIL_TEXT_BYTES = 16 << 10


@dataclass(frozen=True)
class Script:
    """What a worker runs: a file, or with `module` a module's name, and its arguments."""

    command: Sequence[str]
    module: bool


def become_worker(env: dict[str, str], output_fd: int, keep_fd: int, agent_pid: int) -> None:
    """Makes a forked copy of the template a worker: exits if the agent is gone already."""
    system.die_with_parent()
    if os.getppid() != agent_pid:
        os._exit(137)
    os.setsid()  # a group to be killed, and, with sched_autogroup, its own share of the CPU
    system.prctl(system.PR_SET_PTRACER, agent_pid)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.closerange(3, keep_fd)
    os.closerange(keep_fd + 1, _open_limit())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(env)
    os.environ["HPCORE_WORKER_PID"] = str(os.getpid())
    _fresh_streams()
    _fresh_randomness()


def _open_limit() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd")) + 1


def _fresh_streams() -> None:
    """Line by line, so that a killed worker has said what it had to say."""
    out = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
    error = io.FileIO(2, "w", closefd=False)
    streams = {
        "stdout": io.TextIOWrapper(out, "utf-8", "replace", line_buffering=True),
        "stderr": io.TextIOWrapper(error, "utf-8", "backslashreplace", write_through=True),
    }
    for name, stream in streams.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    system.line_buffer_c_stdout()


def _fresh_randomness() -> None:
    """Forked copies of one template must not draw the same numbers where separate processes
    would not."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def run(script: Script) -> int:
    """Runs the script and returns the exit code; state FINISHED or FAILED is said before it
    returns."""
    from hpcore.membership.process import this_worker

    worker = this_worker()
    assert worker is not None
    if "torch" in sys.modules:  # else torch finds it by its entry point, when it is imported
        from hpcore import distributed

        distributed.register()
    try:
        _bind_torch()
        _run_as_main(script)
        code = 0
    except SystemExit as error:
        code = _exit_code(error)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException as error:
        _report(worker, error)
        code = 1
    worker.finish(code)
    return code


def _bind_torch() -> None:
    """The template imported torch before it was a worker: only now `env://` belongs to the job.

    A script that imports torch itself gets this through the entry point `torch.backends`.
    """
    if "torch.distributed" in sys.modules:
        from hpcore.distributed import register

        register()


def leave(code: int) -> None:
    """Ends this process as the interpreter would, but for taking torch apart piece by piece.

    Threads are joined, exit handlers run, files that the script left open are flushed. The rest of
    an interpreter's end costs a forked worker 0.7 s of CPU (it touches, so copies, all that the
    template had imported).
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr, *_open_files()):
        try:
            stream.flush()
        except (OSError, ValueError):  # noqa: PERF203
            pass
    system.flush_c_streams()
    os._exit(code)


def _open_files() -> list[io.IOBase]:
    """Files opened since the fork: what the template had is frozen, so is not looked at."""
    found = [thing for thing in gc.get_objects() if isinstance(thing, io.IOBase)]
    files = [file for file in found if not file.closed and file.writable()]
    return sorted(files, key=lambda file: not isinstance(file, io.TextIOBase))


def _run_as_main(script: Script) -> None:
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    sys.argv = list(script.command)
    if script.module:
        import runpy

        sys.path[0] = os.getcwd()
        runpy._run_module_as_main(script.command[0])  # type: ignore[attr-defined]
        return
    path = script.command[0]
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    main.__file__ = path
    main.__dict__["__cached__"] = None
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _report(worker: _core.Worker, error: BaseException) -> None:
    text = own_traceback(error)
    try:
        worker.post(MAIL_SCRIPT_ERROR, 0, 0, shorten(text, MAIL_TEXT_BYTES - 64), 1.0)
    except Exception:  # the agent's mailbox is full or gone: at least the log has it
        print(text, file=sys.stderr, end="")


def own_traceback(error: BaseException) -> str:
    """The traceback without the frames that started the script."""
    trace = error.__traceback__
    while trace is not None and _ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


def _ours(filename: str) -> bool:
    return filename in (__file__, "<frozen runpy>") or filename.endswith(f"{os.sep}runpy.py")


def shorten(text: str, limit_bytes: int) -> str:
    """Cuts out of the middle; beginning and end of a traceback say most."""
    data = text.encode(errors="replace")
    if len(data) <= limit_bytes:
        return text
    half = limit_bytes // 2 - 16
    head, tail = data[:half], data[-half:]
    return f"{head.decode(errors='ignore')}\n[...]\n{tail.decode(errors='ignore')}"
