"""The processes of a build: batches go out to them in turn, pieces come back in the same order.

Each is a plain child with two pipes, so a script needs no ``if __name__ == "__main__"``, and when
the builder is killed they read the end of their input and end.
A thread for each feeds it: the builder itself only ever waits for the oldest batch.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from hpcore.dataset.pieces import Batch, Converter, Piece
from hpcore.errors import HpcoreError, PeerDead

_AHEAD = 2
"""Batches a process may have waiting, so that it never waits for one."""

MakeConverter = tuple[Callable[..., Converter], tuple[Any, ...]]
"""A function or class and its arguments: each process makes its own."""


def converted(
    batches: Iterator[Batch], make: MakeConverter, processes: int
) -> Generator[tuple[Batch, list[Piece]], None, None]:
    """Each batch with its pieces, in order. One process: this one.

    Raises what the converter raises; PeerDead if a process dies.
    """
    if processes <= 1:
        converter = make[0](*make[1])
        for batch in batches:
            yield batch, converter(batch.payload)
        return
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(_Child(make)) for _ in range(processes)]
        waiting: deque[tuple[Batch, _Child]] = deque()
        for number, batch in enumerate(batches):
            child = children[number % processes]
            if len(waiting) >= processes * _AHEAD:
                oldest, its = waiting.popleft()
                yield oldest, its.receive()
            child.send(batch.payload)
            # The payload is with the child now.
            waiting.append((Batch(None, batch.cursor, batch.input_bytes), child))
        while waiting:
            oldest, its = waiting.popleft()
            yield oldest, its.receive()


class _Child:
    """One process. Owns it and the thread that feeds it; leaving ends both."""

    def __init__(self, make: MakeConverter) -> None:
        package_root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join([str(package_root), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from hpcore.dataset.processes import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._jobs: queue.Queue[bytes | None] = queue.Queue(_AHEAD + 1)
        self._feeder = threading.Thread(target=self._feed, name="hpcore-build-feeder", daemon=True)
        self._feeder.start()
        self.send(make)

    def send(self, what: Any) -> None:
        """Blocks while the process has enough to do."""
        self._jobs.put(pickle.dumps(what, pickle.HIGHEST_PROTOCOL))

    def receive(self) -> list[Piece]:
        """The oldest result. Blocks until it is there or the process is dead."""
        try:
            result = pickle.load(cast("BinaryIO", self._process.stdout))
        except (EOFError, pickle.UnpicklingError):
            code = self._process.wait()
            raise PeerDead(
                f"a process of the build (pid {self._process.pid}) ended with code {code} in the "
                "middle of its work: its last lines are above; if it was killed for memory, use "
                "fewer processes. The build can be run again: it goes on where it was"
            ) from None
        if isinstance(result, BaseException):
            raise result
        return cast("list[Piece]", result)

    def _feed(self) -> None:
        stream = cast("BinaryIO", self._process.stdin)
        try:
            while (job := self._jobs.get()) is not None:
                stream.write(job)
                stream.flush()
        except OSError:  # it is dead; receive() says so
            while self._jobs.get() is not None:
                pass
        finally:
            with contextlib.suppress(OSError):
                stream.close()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        cast("BinaryIO", self._process.stdout).close()
        while True:  # the feeder may stand before a full queue's last job
            try:
                self._jobs.put_nowait(None)
                break
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._jobs.get_nowait()
        self._feeder.join()


def _sendable(error: Exception) -> Exception:
    if isinstance(error, HpcoreError):
        return error
    return RuntimeError(f"{type(error).__name__} in a process of the build: {error}")


def serve() -> None:
    """What a process of a build does: reads payloads, writes pieces, until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the builder ends us
    jobs = os.fdopen(os.dup(0), "rb")
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no result
    converter: Converter | None = None
    problem: Exception | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        function, arguments = pickle.load(jobs)
        try:
            converter = function(*arguments)
        except Exception as error:
            problem = _sendable(error)
        while True:
            payload = pickle.load(jobs)
            result: list[Piece] | Exception
            try:
                result = problem or cast("Converter", converter)(payload)
            except Exception as error:
                result = _sendable(error)
            pickle.dump(result, results, pickle.HIGHEST_PROTOCOL)
            results.flush()
    os._exit(0)  # without closing a broken pipe a second time
