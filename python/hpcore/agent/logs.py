"""Workers' output: from a pipe a worker into one log file a worker, and as prefixed lines to the
terminal.

Two threads: one reads pipes and writes files, so a worker waits for the disk at most; one
writes to the terminal from a bounded queue, so a slow terminal costs lines there (counted and
said), never a worker's time. `add`, `relabel`, `finish`, `show` are thread-safe. A dead worker's
pipe is read to its end before it is closed.
"""

from __future__ import annotations

import io
import os
import selectors
import threading
import time
from collections import deque
from dataclasses import dataclass, field

READ_BYTES = 64 << 10
PIPE_BYTES = 256 << 10
TERMINAL_BYTES = 1 << 20
PARTIAL_BYTES = 16 << 10
"""A line that grows beyond this is shown in pieces."""
_F_SETPIPE_SZ = 1031


def make_pipe() -> tuple[int, int]:
    """A pipe for a worker's output: (our end, its end)."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    try:
        import fcntl

        fcntl.fcntl(theirs, _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:  # the user's pipe memory is used up: the default size does
        pass
    os.set_blocking(ours, False)
    return ours, theirs


@dataclass
class _Stream:
    key: int
    fd: int
    file: io.FileIO
    label: str
    partial: bytes = b""
    ended: bool = False  # the worker is dead: read what is left, then close
    done: threading.Event = field(default_factory=threading.Event)


class LogRelay:
    """The relay of one job. `close()` reads everything to its end, waits briefly for the
    terminal, and ends both threads."""

    def __init__(self, terminal_fd: int | None) -> None:
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._terminal = _Terminal(terminal_fd) if terminal_fd is not None else None
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._changes: deque[_Stream] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hpcore-logs", daemon=True)
        self._thread.start()

    def add(self, key: int, fd: int, path: str, label: str) -> None:
        """Relays `fd` (taken over, nonblocking) to the file at `path`, its lines to the terminal
        as '[label] ...'."""
        stream = _Stream(key, fd, io.FileIO(path, "w"), label)
        with self._lock:
            self._streams[key] = stream
            self._changes.append(stream)
        self._wake()

    def relabel(self, key: int, label: str) -> None:
        """Later lines have another prefix."""
        with self._lock:
            stream = self._streams.get(key)
            if stream is not None:
                stream.label = label

    def finish(self, key: int) -> None:
        """The worker is dead: what it left is read, then its pipe and file are closed. Does not
        block."""
        with self._lock:
            stream = self._streams.get(key)
            if stream is None:
                return
            stream.ended = True
            self._changes.append(stream)
        self._wake()

    def wait(self, key: int, timeout_s: float) -> bool:
        """Waits until everything that a finished worker left has been relayed."""
        with self._lock:
            stream = self._streams.get(key)
        return stream is None or stream.done.wait(timeout_s)

    def show(self, key: int, text: str) -> None:
        """Writes `text` into a worker's log and to the terminal as if the worker had printed it."""
        with self._lock:
            stream = self._streams.get(key)
            if stream is None:
                return
            if not stream.file.closed:
                stream.file.write(text.encode(errors="replace"))
            label = stream.label
        if self._terminal is not None:
            for line in text.splitlines():
                self._terminal.put(f"[{label}] {line}\n".encode(errors="replace"))

    def say(self, lines: list[str]) -> None:
        """The agent's own lines, to the terminal only."""
        if self._terminal is not None:
            text = "".join(f"[hpcore] {line}\n" for line in lines)
            self._terminal.put(text.encode(errors="replace"))

    def close(self, patience_s: float = 1.0) -> None:
        """Ends the relay; lines that the terminal does not take within `patience_s` are dropped.
        Twice is fine."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            for stream in self._streams.values():
                stream.ended = True
                self._changes.append(stream)
        self._wake()
        self._thread.join(patience_s)
        if self._terminal is not None:
            self._terminal.close(patience_s)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except OSError:  # full: it is awake anyway
            pass

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_read, 4096)
                else:
                    self._read(key.data)
            with self._lock:
                changes = list(self._changes)
                self._changes.clear()
                closing = self._closing
            for stream in changes:
                self._change(stream)
            if closing:
                break
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _change(self, stream: _Stream) -> None:
        if not stream.ended:
            self._selector.register(stream.fd, selectors.EVENT_READ, stream)
            return
        while self._read(stream):
            pass
        if not stream.done.is_set():
            self._close_stream(stream)
        with self._lock:
            stream.file.close()  # here, as its pipe may have ended before its process was reaped
            self._streams.pop(stream.key, None)

    def _read(self, stream: _Stream) -> bool:
        """One read; False if there is nothing (now, or ever)."""
        if stream.done.is_set():
            return False
        try:
            data = os.read(stream.fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close_stream(stream)
            return False
        stream.file.write(data)
        if self._terminal is not None:
            self._show(stream, data)
        return True

    def _show(self, stream: _Stream, data: bytes) -> None:
        assert self._terminal is not None
        *lines, rest = (stream.partial + data).split(b"\n")
        if len(rest) > PARTIAL_BYTES:
            lines, rest = [*lines, rest], b""
        stream.partial = rest
        if lines:
            prefix = f"[{stream.label}] ".encode()
            self._terminal.put(b"".join(prefix + _visible(line) + b"\n" for line in lines))

    def _close_stream(self, stream: _Stream) -> None:
        if stream.partial and self._terminal is not None:
            self._terminal.put(f"[{stream.label}] ".encode() + _visible(stream.partial) + b"\n")
        stream.partial = b""
        try:
            self._selector.unregister(stream.fd)
        except KeyError:
            pass
        os.close(stream.fd)
        stream.done.set()


def _visible(line: bytes) -> bytes:
    """What a progress bar left on its line."""
    return line.rstrip(b"\r").rsplit(b"\r", 1)[-1]


class _Terminal:
    """Writes to a descriptor that may be slow or closed, from a bounded queue."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ready = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="hpcore-terminal", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        with self._ready:
            if self._bytes + len(data) > TERMINAL_BYTES:
                self._dropped += data.count(b"\n")
                return
            self._say_dropped()
            self._queue.append(data)
            self._bytes += len(data)
            self._ready.notify()

    def close(self, patience_s: float) -> None:
        with self._ready:
            self._say_dropped()
            self._closed = True
            self._ready.notify()
        self._thread.join(max(0.0, patience_s))

    def _say_dropped(self) -> None:  # with the lock held
        if self._dropped:
            dropped = f"{self._dropped} lines not shown: the terminal is slow"
            note = f"[hpcore] {dropped}; see the logs\n"
            self._queue.append(note.encode())
            self._bytes += len(note)
            self._dropped = 0

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._queue and not self._closed:
                    self._ready.wait()
                if not self._queue:
                    return
                data = b"".join(self._queue)
                self._queue.clear()
            self._write(data)
            with self._ready:
                self._bytes -= len(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view[: 16 << 10]) :]
            except BlockingIOError:  # noqa: PERF203
                time.sleep(0.005)
            except OSError:  # the terminal is gone: the files have it all
                return
