"""Agents' links: authentic, in order, noticed when they end; strangers are hung up on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcore.nodes import handshake
from hpcore.nodes.handshake import Hello
from hpcore.nodes.link import Hub

SECRET = b"s" * 32


class Listener:
    """A hub and what it has heard."""

    def __init__(self, number: int, secret: bytes = SECRET) -> None:
        self._news = threading.Event()
        self.hub = Hub(secret, number, "127.0.0.1", self._news.set)
        self.heard: list[tuple[int, dict[str, Any]]] = []

    def wait(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        until = time.monotonic() + 20
        while True:
            while self.hub.received:
                self.heard.append(self.hub.received.popleft())
            found = [message for _, message in self.heard if message["kind"] == kind]
            if len(found) >= count:
                return found
            assert time.monotonic() < until, f"no {kind}: {self.heard}"
            self._news.wait(0.1)
            self._news.clear()


@pytest.fixture
def make() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def listener(number: int, secret: bytes = SECRET) -> Listener:
        made.append(Listener(number, secret))
        return made[-1]

    yield listener
    for one in made:
        one.hub.close()
        one.hub.close()


def test_links_carry_messages_in_order_and_notice_the_end(make: Callable[..., Listener]) -> None:
    one, two = make(1), make(2)
    two.hub.connect(1, one.hub.address)
    two.wait("linked")
    for n in range(100):
        two.hub.send(1, {"kind": "count", "n": n, "text": "x" * n * 50})
    assert [message["n"] for message in one.wait("count", 100)] == list(range(100))
    one.hub.send(2, {"kind": "back"})
    two.wait("back")
    first = one.hub.heard_s(2)
    assert first is not None
    until = time.monotonic() + 20
    while (one.hub.heard_s(2) or 0.0) <= first:  # heartbeats go on by themselves
        assert time.monotonic() < until
        time.sleep(0.01)
    two.hub.close()
    one.wait("unlinked")
    one.hub.connect(2, two.hub.address)
    one.wait("refused")


def test_links_refuse_another_secret_and_another_node(make: Callable[..., Listener]) -> None:
    one = make(1)
    stranger = make(2, b"t" * 32)
    stranger.hub.connect(1, one.hub.address)
    stranger.wait("unlinked")
    lost = make(3)
    lost.hub.connect(7, one.hub.address)
    lost.wait("unlinked")
    one.hub.close()
    assert not [message for _, message in one.hub.received if message["kind"] == "linked"]


def test_recorded_handshake_is_of_no_use(make: Callable[..., Listener]) -> None:
    one = make(1)
    hello = Hello(2, 1)
    host, _, port = one.hub.address.rpartition(":")

    def call(proof: bytes | None) -> tuple[bytes, bytes]:
        with socket.create_connection((host, int(port)), 5) as made:
            made.sendall(hello.to_bytes())
            answered = made.recv(handshake.ANSWER_BYTES, socket.MSG_WAITALL)
            sent = proof or handshake.proof(SECRET, hello, answered)
            made.sendall(sent)
            made.settimeout(0.5)
            try:
                return sent, made.recv(1)
            except TimeoutError:
                return sent, b"open"

    proof, came = call(None)
    assert came  # the right one is let in: its first heartbeat, or silence
    one.wait("linked")
    assert call(proof)[1] == b""  # the answer has other random bytes now


@given(st.binary(max_size=200))
def test_hello_of_any_bytes_is_refused_or_the_same_again(data: bytes) -> None:
    hello = Hello.from_bytes(data)
    assert hello is None or hello.to_bytes() == data


def test_link_ends_at_a_forged_message(make: Callable[..., Listener]) -> None:
    one = make(1)
    host, _, port = one.hub.address.rpartition(":")
    hello = Hello(2, 1)
    with socket.create_connection((host, int(port)), 5) as made:
        made.sendall(hello.to_bytes())
        answered = made.recv(handshake.ANSWER_BYTES, socket.MSG_WAITALL)
        made.sendall(handshake.proof(SECRET, hello, answered))
        one.wait("linked")
        text = b'{"kind":"stop"}'
        made.sendall(len(text).to_bytes(4, "big") + bytes(16) + text)
        one.wait("unlinked")
    assert not [message for _, message in one.heard if message["kind"] == "stop"]
