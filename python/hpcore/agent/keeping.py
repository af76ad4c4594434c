"""The agent's side of its shadow keeper: starts it, tells it whom to keep, hears of it.

One thread. Owns the process. A keeper that cannot start or dies costs the second copies, which is
told, and nothing else. It ends with the agent: its standard input does.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcore.agent.shadow_memory import WANTED_KEY
from hpcore.membership.neighbours import keeping
from hpcore.membership.roster import Roster

if TYPE_CHECKING:
    from hpcore import _core

END_LIMIT_S = 5.0
START_LIMIT_S = 20.0


class ShadowKeeper:
    """One node's keeper. `fileno()` is readable when `events()` has something to say."""

    def __init__(self, memory_fd: int, env: Mapping[str, str]) -> None:
        """`env`: HPCORE_FABRIC and the like, as workers get them."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hpcore.agent.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[memory_fd],
            env={**env, "HPCORE_SHADOW_FD": str(memory_fd)},
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._out, False)
        self._rest = b""
        self._told = ""
        self.address: str | None = None
        """For `Node.keeper`; None until it is known, '' if there is none: `why` says why."""
        self.why = ""

    @property
    def pid(self) -> int:
        """Of the keeper."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when there are events, and at the keeper's end."""
        return self._out

    def wait_address(self, timeout_s: float) -> str:
        """Blocks until the keeper is ready (0.3 s, mostly libfabric's) or cannot be."""
        deadline = time.monotonic() + timeout_s
        while self.address is None and (left := deadline - time.monotonic()) > 0:
            select.select([self._out], [], [], left)
            self.events()
        return self.address or ""

    def events(self) -> list[dict[str, Any]]:
        """What it has told since; `shadow_keeper_lost`, once, if it is gone. Does not block."""
        read = self._read()
        *lines, self._rest = (self._rest + read).split(b"\n")
        found = [json.loads(line) for line in lines if line]
        for message in [one for one in found if "address" in one]:
            self.address, self.why = message["address"], message.get("why", "")
            found.remove(message)
        if self._process.poll() is not None and self.address != "":
            self.address = ""
            self.why = self.why or f"the shadow keeper ended with {self._process.returncode}"
            found.append({"event": "shadow_keeper_lost", "why": self.why})
        return found

    def _read(self) -> bytes:
        read = b""
        while self._out >= 0:
            try:
                part = os.read(self._out, 1 << 16)
            except BlockingIOError:
                return read
            if not part:
                return read
            read += part
        return read

    def follow(self, roster: Roster, number: int) -> None:
        """Tells the keeper of node `number` its part in this roster, if it is another one."""
        task = keeping(roster, number)
        text = json.dumps(
            {
                "ranks": task.ranks,
                "kept_by": task.kept_by,
                "keeps": [{"keeper": keeper, "ranks": ranks} for keeper, ranks in task.keeps],
            }
        )
        if text == self._told or self._process.poll() is not None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return
        self._told = text

    def close(self) -> None:
        """Ends the keeper. Twice is fine."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out = -1
        if self._process.stdout is not None:
            self._process.stdout.close()


class KeeperDesk:
    """The keeper of a job's node, from when a worker first says that ranks keep shadows."""

    def __init__(
        self, store: _core.SharedStore, memory_fd: int, env: Mapping[str, str], number: int
    ) -> None:
        self._store, self._memory_fd = store, memory_fd
        self._env, self._number = env, number
        self._keeper: ShadowKeeper | None = None

    def address_if_wanted(self) -> str:
        """For `Node.keeper`. The first time, where ranks keep shadows, it blocks until the keeper
        runs (0.3 s)."""
        if self._keeper is None:
            if not self._store.check([WANTED_KEY]):
                return ""
            self._keeper = ShadowKeeper(self._memory_fd, self._env)
            self._keeper.wait_address(START_LIMIT_S)
        return self._keeper.address or ""

    def follow(self, roster: Roster) -> None:
        """The keeper's part in this roster."""
        if self._keeper is not None:
            self._keeper.follow(roster, self._number)

    def events(self) -> list[dict[str, Any]]:
        """What the keeper has told since."""
        return self._keeper.events() if self._keeper is not None else []

    def close(self) -> None:
        """Ends the keeper. Twice is fine."""
        if self._keeper is not None:
            self._keeper.close()
        self._keeper = None
