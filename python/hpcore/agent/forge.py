"""The agent's side of the template process: starts it, asks it for workers, hears of them.

One thread. Owns the process and the socket. A template that dies is started again with what is
still to be forked, a few times; then the requests fail with the reason.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcore.agent.options import interpreter_flags
from hpcore.agent.template import receive, send

MAX_STARTS = 3
"""Starts in a row of a template that forks nothing."""


@dataclass(frozen=True)
class Forked:
    """The answer to a request: a pid, or (0) the reason why there is none."""

    request: int
    pid: int
    reason: str = ""


@dataclass(frozen=True)
class _Request:
    number: int
    env: Mapping[str, str]
    output_fd: int


class Forge:
    """Makes workers. `fileno()` is readable when `answers()` has something to say; it changes
    when the template restarts."""

    def __init__(
        self,
        *,
        command: Sequence[str],
        module: bool,
        preload: Sequence[str],
        env: Mapping[str, str],
        segment_fd: int,
        log_path: str,
    ) -> None:
        self._setup = {
            "command": list(command),
            "module": module,
            "preload": list(preload),
            "segment_fd": segment_fd,
            "agent_pid": os.getpid(),
        }
        self._env = dict(env)
        self._segment_fd = segment_fd
        self._log_path = log_path
        self._waiting: dict[int, _Request] = {}
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._retired = False
        self.warning = ""  # what the template said about itself when it was ready
        self.ready_ns = 0

    def start(self) -> None:
        """Starts the template; it imports while the caller goes on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._starts += 1
        with theirs, open(self._log_path, "ab") as log:
            self._process = subprocess.Popen(
                [*interpreter_flags(), "-m", "hpcore.agent.template", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                pass_fds=(theirs.fileno(), self._segment_fd),
                start_new_session=True,
            )
        self._socket = ours
        send(ours, {"setup": self._setup})

    @property
    def channel(self) -> socket.socket | None:
        """The socket to the present template: another object after each restart."""
        return self._socket

    def fileno(self) -> int:
        """The socket's descriptor, -1 if there is none."""
        return self._socket.fileno() if self._socket is not None else -1

    def request(self, number: int, env: Mapping[str, str], output_fd: int) -> None:
        """Asks for a worker; takes `output_fd` over. Does not block (a template still importing
        finds it later)."""
        request = _Request(number, env, output_fd)
        self._waiting[number] = request
        if self._socket is None and not self._retired:  # it had died too often: once more
            self._starts = 0
            self.start()
        self._send(request)

    def _send(self, request: _Request) -> None:
        if self._socket is None:
            return
        try:
            send(
                self._socket,
                {"fork": request.number, "env": dict(request.env)},
                (request.output_fd,),
            )
        except OSError:  # the template is gone: `answers` will find out and start another
            pass

    def answers(self) -> list[Forked]:
        """One message's worth of answers; call when readable."""
        if self._socket is None:
            return []
        try:
            message, _ = receive(self._socket)
        except OSError:
            message = None
        if message is None:
            return self._lost()
        return self._answer(message)

    def _answer(self, message: dict[str, Any]) -> list[Forked]:
        if "ready" in message:
            self.ready_ns = time.monotonic_ns()
            failed = [f"{name} ({why})" for name, why in message["failed"].items()]
            if failed:
                self.warning = f"the template could not import {', '.join(failed)}"
            if message["threads"] != 1:
                self.warning = f"the template has {message['threads']} threads; forks may misbehave"
            return []
        number = int(message["forked"] if "forked" in message else message["failed"])
        request = self._waiting.pop(number, None)
        if request is not None:
            os.close(request.output_fd)
        self._starts = 1
        return [Forked(number, int(message.get("pid", 0)), message.get("reason", ""))]

    def _lost(self) -> list[Forked]:
        """The template died: another one, unless it dies again and again."""
        code = self._end(0.0)
        if self._retired:
            self._drop_waiting()
            return []
        if self._starts < MAX_STARTS:
            self.start()
            for request in self._waiting.values():
                self._send(request)
            return []
        ended = f"the template process ended with code {code} {self._starts} times"
        reason = f"{ended}: see {self._log_path}"
        failed = [Forked(number, 0, reason) for number in self._waiting]
        self._drop_waiting()
        return failed

    def _drop_waiting(self) -> None:
        for request in self._waiting.values():
            os.close(request.output_fd)
        self._waiting.clear()

    def retire(self) -> None:
        """No more workers: the template ends after what it is at; `answers` says what that was,
        then `fileno` is -1."""
        self._retired = True
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_WR)

    @property
    def pid(self) -> int:
        """The template's pid, 0 if there is none."""
        return self._process.pid if self._process is not None else 0

    def _end(self, patience_s: float) -> int:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()

    def close(self) -> None:
        """Ends the template. Twice is fine."""
        self._end(0.0)
        self._drop_waiting()
