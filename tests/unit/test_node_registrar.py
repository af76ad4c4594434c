"""A node that takes the lead: nothing that others say to it is lost, however early it comes."""

from collections import deque
from typing import Any

import pytest

from hpcore.agent import node_registrar
from hpcore.agent.node_registrar import NodeRegistrar


class DeskDouble:
    """Stands in for the lead's desk: notes what it hears."""

    def __init__(self, *_: Any) -> None:
        self.heard: list[tuple[int, str]] = []
        self.alive: set[int] = set()
        self.gone: dict[int, float] = {}

    def join(self, *_: Any) -> None:
        self.heard.append((0, "own"))

    def hear(self, node: int, message: dict[str, Any]) -> None:
        self.heard.append((node, message["kind"]))


class NodeDouble:
    """What `_begin_to_lead` hands on, and does not look into."""

    plan = lease_s = None


@pytest.fixture
def registrar(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(node_registrar, "LeadDesk", DeskDouble)
    monkeypatch.setattr(NodeRegistrar, "_snapshot", lambda self: None)
    monkeypatch.setattr(NodeRegistrar, "_generation", 0)
    made: Any = NodeRegistrar.__new__(NodeRegistrar)
    made._desk = made._leader = made._policy = made._hub = made._enrolment = None
    made._node, made.number, made._alive, made._gone = NodeDouble(), 0, {0, 1}, {}
    made._unsent, made._early, made._leading_asked = deque(), deque(), True
    return made


def test_hello_before_the_lead_knows_itself_is_kept(registrar: Any) -> None:
    registrar._hear(1, {"kind": "linked"})
    registrar._hear(1, {"kind": "hello"})
    registrar._hear(1, {"kind": "event"})
    registrar._begin_to_lead(None)
    assert registrar._desk.heard == [(0, "own"), (1, "hello"), (1, "event")]


def test_what_was_meant_for_a_lead_that_another_became_is_dropped(registrar: Any) -> None:
    registrar._hub = type("HubDouble", (), {"connect": lambda *_: None})()
    registrar._hear(2, {"kind": "hello"})
    lead = {"number": 1, "address": "10.0.0.2:1", "version": 7}
    registrar._look({"nodes": [0, 1, 2], "stop": None, "lead": lead})
    assert not registrar._early and not registrar._leading_asked
