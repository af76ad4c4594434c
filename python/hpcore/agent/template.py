"""The template: a process that has imported what scripts import, and forks workers.

Started by the agent as `python -m hpcore.agent.template SOCKET_FD`. One thread (counted: a
fork of several threads is no worker), OpenMP untouched. It forks twice, so that a worker is the
agent's child (the agent is the subreaper), not the template's. Protocol, one JSON message a
packet: agent -> {"setup": ...} once; template -> {"ready": ...}; agent -> {"fork": id, "env":
...} with the worker's output pipe attached; template -> {"forked": id, "pid": ...} or {"failed":
id, ...}. The end of the socket ends the template; the death of the agent, too.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

from hpcore.agent import system
from hpcore.agent.bootstrap import Script, become_worker, leave, run

MESSAGE_BYTES = 128 << 10


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One message and the descriptors that came with it; None at the end."""
    fds = array.array("i")
    data, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(4 * fds.itemsize))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return (json.loads(data) if data else None), list(fds)


def send(channel: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """One message, with descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel.sendmsg([json.dumps(message).encode()], rights)


def main() -> int:
    """Returns in the template only, at its end."""
    system.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    setup, _ = receive(channel)
    if setup is None:
        return 0
    facts = setup["setup"]
    if os.getppid() != facts["agent_pid"]:
        return 137
    failed = preload(facts["preload"])
    gc.collect()
    gc.freeze()
    threads = len(os.listdir("/proc/self/task"))
    send(channel, {"ready": True, "threads": threads, "failed": failed})
    while True:
        message, fds = receive(channel)
        if message is None:
            return 0
        if fork_worker(channel, message, fds, facts):
            leave(run(Script(facts["command"], facts["module"])))


def preload(names: list[str]) -> dict[str, str]:
    """Imports modules by name; what cannot be imported is said, not fatal: the script may not
    need it."""
    failed = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: PERF203
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def fork_worker(
    channel: socket.socket, message: dict[str, Any], fds: list[int], facts: dict[str, Any]
) -> bool:
    """Forks one worker; True in the worker."""
    go_read, go_write = os.pipe()
    pid_read, pid_write = os.pipe()
    try:
        child = os.fork()
        if child == 0:
            _fork_again(pid_write)
            os.close(go_write)
            if os.read(go_read, 1) != b"g":  # only now it is the agent's child
                os._exit(137)
            become_worker(message["env"], fds[0], facts["segment_fd"], facts["agent_pid"])
            return True
        os.waitpid(child, 0)
        os.close(pid_write)
        pid_write = -1
        answer = os.read(pid_read, 32)
        if not answer:
            raise OSError("the intermediate process could not fork")
        send(channel, {"forked": message["fork"], "pid": int(answer)})
        os.write(go_write, b"g")
    except OSError as error:
        send(channel, {"failed": message["fork"], "reason": str(error)})
    finally:
        for fd in (go_read, go_write, pid_read, pid_write, *fds):
            if fd >= 0:
                _close(fd)
    return False


def _fork_again(pid_write: int) -> None:
    """Returns in the grandchild only."""
    try:
        grandchild = os.fork()
    except OSError:
        os._exit(1)
    if grandchild:
        os.write(pid_write, str(grandchild).encode())
        os._exit(0)


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:  # a worker has closed everything already
        pass


if __name__ == "__main__":
    sys.exit(main())
