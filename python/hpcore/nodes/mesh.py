"""Connections between nodes' spokesmen: one rank of each node, in one generation.

Everything a connection needs is in the roster. Each operation ends with RosterChanged as soon as
the generation is revoked; nothing blocks for longer than `_SLICE_S` without a look. Training thread
only. A mesh is made for one generation and closed with it: no byte of an older one can arrive.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from hpcore.errors import DeadlineExceeded, MismatchError, RosterChanged
from hpcore.nodes import handshake
from hpcore.nodes.handshake import Hello, address_of

_SLICE_S = 0.002
_SPIN_S = 0.0002

View = memoryview


class Door:
    """Where a rank can be reached by ranks on other nodes: a listening socket, for all generations.
    `address` goes into the roster. `close()` twice is fine."""

    def __init__(self, host: str, secret: bytes) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.create_server((host, 0), family=family, backlog=1024)
        self.socket.setblocking(False)
        self.secret = secret
        self.address = address_of(self.socket)

    def close(self) -> None:
        """Ends listening."""
        self.socket.close()


class Mesh:
    """`addresses`: of all spokesmen, in the order of nodes; `index`: which of them this one is."""

    def __init__(
        self,
        door: Door,
        generation: int,
        addresses: Sequence[str],
        index: int,
        check: Callable[[], None],
        timeout_s: float,
    ) -> None:
        """Connects to all; blocks until all came. Raises RosterChanged, DeadlineExceeded."""
        self.index = index
        self.count = len(addresses)
        self._check = check
        self._generation = generation
        self._peers: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        try:
            self._connect(door, addresses, time.monotonic() + timeout_s)
        except BaseException:
            self.close()
            raise

    def _connect(self, door: Door, addresses: Sequence[str], until: float) -> None:
        """To those before us; those after us come. A handshake that fails is tried again: whoever
        is gone for good is gone from the roster soon."""
        left = set(range(self.index))
        while left or len(self._peers) < self.count - 1:
            self._check()
            for peer in sorted(left):
                made = self._call(door.secret, addresses[peer], peer)
                if made is not None:
                    self._take(peer, made)
                    left.discard(peer)
            if len(self._peers) < self.count - 1:
                self._answer(door)
            if time.monotonic() > until:
                missing = [n for n in range(self.count) if n != self.index and n not in self._peers]
                raise DeadlineExceeded(
                    f"generation {self._generation}: no connection to "
                    f"{[addresses[n] for n in missing]} in time"
                )

    def _take(self, peer: int, made: socket.socket) -> None:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers[peer] = made

    def _call(self, secret: bytes, address: str, peer: int) -> socket.socket | None:
        host, _, port = address.rpartition(":")
        hello = Hello(self.index, peer, self._generation)
        try:
            made = socket.create_connection((host, int(port)), 0.2)
        except OSError:
            time.sleep(_SLICE_S)
            return None
        try:
            made.settimeout(0.2)
            made.sendall(hello.to_bytes())
            answered = b""
            while len(answered) < handshake.ANSWER_BYTES:  # the other may still be elsewhere
                self._check()
                try:
                    got = made.recv(handshake.ANSWER_BYTES - len(answered))
                except TimeoutError:
                    continue
                if not got:
                    raise ConnectionError("closed")
                answered += got
            if not handshake.accepts(secret, hello, answered):
                raise ConnectionError("the other side does not know the job's secret")
            made.sendall(handshake.proof(secret, hello, answered))
            return made
        except OSError:
            made.close()
            return None
        except BaseException:
            made.close()
            raise

    def _answer(self, door: Door) -> None:
        """One caller, if there is one. Of an older generation, or a stranger: hung up on."""
        try:
            made, _ = door.socket.accept()
        except (BlockingIOError, OSError):
            time.sleep(_SPIN_S)
            return
        try:
            made.settimeout(0.5)
            hello = Hello.from_bytes(_exactly(made, handshake.HELLO_BYTES))
            if hello is None or hello.receiver != self.index:
                raise ConnectionError("not for us")
            if hello.generation != self._generation or not self.index < hello.sender < self.count:
                raise ConnectionError("of another generation")
            answered = handshake.answer(door.secret, hello)
            made.sendall(answered)
            if _exactly(made, handshake.PROOF) != handshake.proof(door.secret, hello, answered):
                raise ConnectionError("the other side does not know the job's secret")
        except OSError:
            made.close()
            return
        self._take(hello.sender, made)

    def exchange(
        self, sends: dict[int, list[View]], receives: dict[int, list[View]], timeout_s: float
    ) -> None:
        """Sends and receives at once, until all is there. Raises RosterChanged, DeadlineExceeded.

        A connection that broke is waited on: the agents know better what it means, and revoke.
        """
        out = {peer: [v for v in views if v.nbytes] for peer, views in sends.items()}
        into = {peer: [v for v in views if v.nbytes] for peer, views in receives.items()}
        until = time.monotonic() + timeout_s
        quiet_since = time.monotonic()
        while True:
            moved = self._push(out) | self._pull(into)
            if not any(out.values()) and not any(into.values()):
                return
            now = time.monotonic()
            if moved:
                quiet_since = now
                continue
            self._check()
            if now > until:
                missing = [peer for peer, views in into.items() if views]
                raise DeadlineExceeded(f"nodes {missing} did not come in {timeout_s:.1f} s")
            self._sleep(out, into, _SLICE_S if now - quiet_since > _SPIN_S else 0.0)

    def _push(self, out: dict[int, list[View]]) -> bool:
        moved = False
        for peer, views in out.items():
            while views:
                try:
                    sent = self._peers[peer].sendmsg(views[:64])
                except BlockingIOError:
                    break
                except OSError:
                    break
                moved = True
                _advance(views, sent)
        return moved

    def _pull(self, into: dict[int, list[View]]) -> bool:
        moved = False
        for peer, views in into.items():
            while views:
                try:
                    got = self._peers[peer].recvmsg_into(views[:64])[0]
                except BlockingIOError:
                    break
                except OSError:
                    break
                if not got:
                    break
                moved = True
                _advance(views, got)
        return moved

    def _sleep(
        self, out: dict[int, list[View]], into: dict[int, list[View]], seconds: float
    ) -> None:
        wanted = {peer: selectors.EVENT_READ for peer, views in into.items() if views}
        for peer, views in out.items():
            if views:
                wanted[peer] = wanted.get(peer, 0) | selectors.EVENT_WRITE
        for peer, events in wanted.items():
            self._selector.register(self._peers[peer], events)
        began = time.monotonic()
        self._selector.select(seconds)
        for peer in wanted:
            self._selector.unregister(self._peers[peer])
        if seconds and time.monotonic() - began < _SPIN_S:  # readable, but nothing came: it broke
            time.sleep(_SPIN_S)

    def gather(self, data: bytes, timeout_s: float) -> list[bytes]:
        """One string of each node, in the order of nodes."""
        others = [peer for peer in range(self.count) if peer != self.index]
        sizes = {peer: bytearray(8) for peer in others}
        own = len(data).to_bytes(8, "big")
        self.exchange(
            {peer: [View(own)] for peer in others},
            {peer: [View(size)] for peer, size in sizes.items()},
            timeout_s,
        )
        found = {peer: bytearray(int.from_bytes(size, "big")) for peer, size in sizes.items()}
        self.exchange(
            {peer: [View(data)] for peer in others},
            {peer: [View(space)] for peer, space in found.items()},
            timeout_s,
        )
        return [data if n == self.index else bytes(found[n]) for n in range(self.count)]

    def agree(self, value: bytes, what: str, timeout_s: float) -> None:
        """Meets all others; raises MismatchError if they brought something else of that size."""
        others = [peer for peer in range(self.count) if peer != self.index]
        came = {peer: bytearray(len(value)) for peer in others}
        self.exchange(
            {peer: [View(value)] for peer in others},
            {peer: [View(space)] for peer, space in came.items()},
            timeout_s,
        )
        for peer, space in came.items():
            if bytes(space) != value:
                raise MismatchError(f"{what}: node {peer} of this generation is elsewhere")

    def close(self) -> None:
        """Ends all connections. Twice is fine."""
        for peer in self._peers.values():
            peer.close()
        self._peers = {}
        self._selector.close()


def _advance(views: list[View], moved: int) -> None:
    """Takes so many bytes off the front."""
    while moved and views:
        if moved < views[0].nbytes:
            views[0] = views[0][moved:]
            return
        moved -= views[0].nbytes
        views.pop(0)


def _exactly(made: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = made.recv(size - len(data))
        if not got:
            raise ConnectionError("closed")
        data += got
    return data


def no_longer(worker: Any, generation: int) -> Callable[[], None]:
    """Raises RosterChanged when the generation is over."""

    def check() -> None:
        if worker.revoked(generation):
            raise RosterChanged(f"generation {generation} is over")

    return check
