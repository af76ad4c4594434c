"""The other end of state_peer.py: starts a peer in a slot and talks to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PEER = Path(__file__).with_name("state_peer.py")


class Process:
    """A peer in a slot."""

    def __init__(
        self, segment: Any, slot: int, seed: int | None, sizes: list[int], where: str = "heap"
    ) -> None:
        self.slot = slot
        segment.prepare_slot(slot, slot + 1)
        self.process = subprocess.Popen(
            [sys.executable, str(PEER), str(segment.fd), str(slot), str(slot + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[segment.fd],
            text=True,
        )
        self.regions = self.ask("make", sizes, seed, where)
        self.arenas = self.ask("arenas")

    def send(self, name: str, *arguments: Any, **options: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, arguments, options]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the peer in slot {self.slot} died"
        return json.loads(line)  # type: ignore[no-any-return]

    def ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.send(name, *arguments, **options)
        answer = self.answer()
        assert "ok" in answer, answer
        return answer["ok"]

    def fails(self, name: str, *arguments: Any, **options: Any) -> tuple[str, str]:
        self.send(name, *arguments, **options)
        answer = self.answer()
        return answer["error"], answer["message"]

    @property
    def address(self) -> list[Any]:
        return [self.slot, self.process.pid, self.regions, self.arenas]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
