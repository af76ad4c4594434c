"""Who may talk: both sides of a connection prove that they know the job's secret. Pure.

HMAC-SHA256 over what both said, fresh random bytes of both among it: nothing that was recorded is
of use again, nor is anything of another job. What connects says first for whom it takes the other.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
from dataclasses import dataclass, field

MAGIC = b"HPCN"
NONCE = 16
PROOF = 32
HELLO_BYTES = len(MAGIC) + 8 * 3 + NONCE
ANSWER_BYTES = NONCE + PROOF
_HEAD = struct.Struct(">4sqqq")


def derive(secret: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 of parts, each with its length: no two lists of parts look alike."""
    mac = hmac.new(secret, digestmod="sha256")
    for part in parts:
        mac.update(struct.pack(">I", len(part)) + part)
    return mac.digest()


@dataclass(frozen=True)
class Hello:
    """Who connects to whom, in which generation (0: agents)."""

    sender: int
    receiver: int
    generation: int = 0
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE))

    def to_bytes(self) -> bytes:
        """What is sent first."""
        return _HEAD.pack(MAGIC, self.sender, self.receiver, self.generation) + self.nonce

    @staticmethod
    def from_bytes(data: bytes) -> Hello | None:
        """The inverse; None if it is something else."""
        if len(data) != HELLO_BYTES or data[:4] != MAGIC:
            return None
        _, sender, receiver, generation = _HEAD.unpack_from(data)
        return Hello(sender, receiver, generation, data[_HEAD.size :])


def answer(secret: bytes, hello: Hello) -> bytes:
    """The other's nonce and proof, sent back."""
    nonce = secrets.token_bytes(NONCE)
    return nonce + derive(secret, b"accept", hello.to_bytes(), nonce)


def accepts(secret: bytes, hello: Hello, answered: bytes) -> bool:
    """Whether an answer comes from one who knows the secret."""
    nonce, proof = answered[:NONCE], answered[NONCE:]
    return hmac.compare_digest(proof, derive(secret, b"accept", hello.to_bytes(), nonce))


def proof(secret: bytes, hello: Hello, answered: bytes) -> bytes:
    """What the one who connected sends last."""
    return derive(secret, b"connect", hello.to_bytes(), answered[:NONCE])


def session_key(secret: bytes, hello: Hello, answered: bytes) -> bytes:
    """The key of this connection's messages."""
    return derive(secret, b"session", hello.to_bytes(), answered[:NONCE])


def address_of(listening: socket.socket) -> str:
    """host:port."""
    host, port = listening.getsockname()[:2]
    return f"{host}:{port}"
