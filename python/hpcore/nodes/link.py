"""Agents' messages: TCP connections between nodes, each message authenticated and counted.

A `Hub` has one thread (asyncio) of its own; `send`, `connect`, `heard_s` and `close` may be called
from any thread, `received` is emptied by one. Heartbeats go out from that thread ten times a second
whatever the agent does. What arrives, and what happens to connections, is put into `received`, then
`wake` is called: {"kind": "linked" | "unlinked" | "refused" | ..., ...}.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from hpcore.nodes import handshake
from hpcore.nodes.handshake import Hello, address_of

BEAT_S = 0.1
HANDSHAKE_S = 2.0
MAX_MESSAGE_BYTES = 64 << 20
_LENGTH = struct.Struct(">I")
_MAC_BYTES = 16

Message = dict[str, Any]


class Hub:
    """All links of one agent. `host`: the address to listen on, and to be reached at."""

    def __init__(self, secret: bytes, number: int, host: str, wake: Callable[[], None]) -> None:
        """Raises OSError if there is no such address here."""
        self._secret = secret
        self._number = number
        self._wake = wake
        self.received: deque[tuple[int, Message]] = deque()
        self.beat: Message = {}
        """What heartbeats say beside that we live; replaced, never changed."""
        self.beats: dict[int, tuple[float, Message]] = {}
        """The last heartbeat of each peer, and when it came."""
        self._heard: dict[int, float] = {}
        self._links: dict[int, _Link] = {}
        self._socket = socket.create_server((host, 0), family=_family(host))
        self.address = address_of(self._socket)
        self._loop = asyncio.new_event_loop()
        self._closing: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent-links", daemon=True)
        self._thread.start()
        self._ready.wait()

    # --- any thread -----------------------------------------------------------------------------

    def connect(self, peer: int, address: str) -> None:
        """Links to an agent; says "linked", or "refused" if nobody listens there, or "unlinked"."""
        self._call(lambda: self._loop.create_task(self._reach(peer, address)))

    def send(self, peer: int, message: Message) -> None:
        """Sends if there is a link; a message to a node that is gone is lost."""
        text = json.dumps(message, separators=(",", ":")).encode()
        self._call(lambda: self._write(peer, text))

    def heard_s(self, peer: int) -> float | None:
        """When something of a peer came last, by time.monotonic()."""
        return self._heard.get(peer)

    def drop(self, peer: int) -> None:
        """Ends a link."""
        self._call(lambda: self._links[peer].close() if peer in self._links else None)

    def close(self) -> None:
        """Sends what was asked for, ends all links and the thread. Twice is fine."""
        if self._thread.is_alive():
            self._call(lambda: self._closing.set() if self._closing else None)
            self._thread.join()

    def _call(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # closed
            pass

    # --- the hub's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()
            self._socket.close()

    async def _serve(self) -> None:
        self._closing = asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._socket)
        beating = asyncio.create_task(self._beat())
        self._ready.set()
        await self._closing.wait()
        server.close()
        beating.cancel()
        for link in list(self._links.values()):
            await link.finish()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            sent_s = time.monotonic()
            text = json.dumps({"kind": "beat", "sent_s": sent_s, **self.beat}).encode()
            for peer in list(self._links):
                self._write(peer, text)
            await asyncio.sleep(BEAT_S)

    async def _reach(self, peer: int, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            opening = asyncio.open_connection(host.strip("[]"), int(port))
            reader, writer = await asyncio.wait_for(opening, HANDSHAKE_S)
        except ConnectionRefusedError:
            self._tell(peer, {"kind": "refused"})
            return
        except (OSError, asyncio.TimeoutError):
            self._tell(peer, {"kind": "unlinked"})
            return
        hello = Hello(self._number, peer)
        try:
            writer.write(hello.to_bytes())
            answered = await _read(reader, handshake.ANSWER_BYTES)
            if not handshake.accepts(self._secret, hello, answered):
                raise ConnectionError("the other side does not know the job's secret")
            writer.write(handshake.proof(self._secret, hello, answered))
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            writer.close()
            self._tell(peer, {"kind": "unlinked"})
            return
        key = handshake.session_key(self._secret, hello, answered)
        await self._follow(peer, reader, _Link(writer, key, b"connect"), b"accept")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = Hello.from_bytes(await _read(reader, handshake.HELLO_BYTES))
            if hello is None or hello.receiver != self._number or hello.generation:
                raise ConnectionError("not for us")
            answered = handshake.answer(self._secret, hello)
            writer.write(answered)
            told = await _read(reader, handshake.PROOF)
            if not hmac.compare_digest(told, handshake.proof(self._secret, hello, answered)):
                raise ConnectionError("the other side does not know the job's secret")
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            writer.close()
            return
        key = handshake.session_key(self._secret, hello, answered)
        await self._follow(hello.sender, reader, _Link(writer, key, b"accept"), b"connect")

    async def _follow(
        self, peer: int, reader: asyncio.StreamReader, link: _Link, direction: bytes
    ) -> None:
        """One link to its end."""
        before = self._links.pop(peer, None)
        if before is not None:
            before.close()
        self._links[peer] = link
        self._heard[peer] = time.monotonic()
        self._tell(peer, {"kind": "linked"})
        count = 0
        try:
            while True:
                (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                if size > MAX_MESSAGE_BYTES:
                    raise ConnectionError(f"a message of {size} bytes")
                mac = await reader.readexactly(_MAC_BYTES)
                text = await reader.readexactly(size)
                if not hmac.compare_digest(mac, link.mac(direction, count, text)):
                    raise ConnectionError("a message that is not authentic")
                count += 1
                self._heard[peer] = time.monotonic()
                self._tell(peer, json.loads(text))
        except (OSError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            link.close()
            if self._links.get(peer) is link:
                del self._links[peer]
                self._tell(peer, {"kind": "unlinked"})

    def _write(self, peer: int, text: bytes) -> None:
        link = self._links.get(peer)
        if link is not None:
            link.write(text)

    def _tell(self, peer: int, message: Message) -> None:
        if message.get("kind") == "beat":
            self.beats[peer] = (time.monotonic(), message)
        else:
            self.received.append((peer, message))
            self._wake()


class _Link:
    """The writing side of a connection. The hub's thread."""

    def __init__(self, writer: asyncio.StreamWriter, key: bytes, direction: bytes) -> None:
        self._writer = writer
        self._key = key
        self._direction = direction
        self._sent = 0
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def mac(self, direction: bytes, count: int, text: bytes) -> bytes:
        """What proves message number `count` of one direction."""
        return handshake.derive(self._key, direction, b"%d" % count, text)[:_MAC_BYTES]

    def write(self, text: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > MAX_MESSAGE_BYTES:
            self.close()  # a peer that takes nothing
            return
        mac = self.mac(self._direction, self._sent, text)
        self._writer.write(_LENGTH.pack(len(text)) + mac + text)
        self._sent += 1

    def close(self) -> None:
        self._writer.close()

    async def finish(self) -> None:
        """Closes when all is sent, or after a moment."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), 0.5)
        except (OSError, asyncio.TimeoutError):
            pass


async def _read(reader: asyncio.StreamReader, size: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(size), HANDSHAKE_S)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
