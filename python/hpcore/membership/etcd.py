"""The coordinator contract over etcd's JSON gateway (etcd 3.4 or newer), through etcd3gw.

Any member answers: a call goes to the one that answered last, then to the others, each with a short
time-out. Thread-safe; each watch has a thread. Nothing is kept between calls but connections.
"""

from __future__ import annotations

import base64
import json
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from hpcore.errors import CoordinatorUnavailable, InvalidArgument
from hpcore.membership.coordinator import Entry, Guard, Watch

CALL_S = 1.0
"""One member may take so long; a leader's election takes about as long as this."""
PATIENCE_S = 3.0
"""So long all members are asked in turn."""
DEFAULT_PORT = 2379


@dataclass(frozen=True)
class EtcdAddress:
    """Where etcd is and who we are there. `ca`, `cert`, `key`: files, for TLS."""

    members: tuple[tuple[str, int], ...]
    tls: bool = False
    user: str = ""
    password: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    @staticmethod
    def parse(text: str, env: Mapping[str, str] = os.environ) -> EtcdAddress:
        """`etcd[s]://[user:password@]host:port[,host:port]`. The password may be left to
        HPCORE_ETCD_PASSWORD; HPCORE_ETCD_CA, HPCORE_ETCD_CERT and HPCORE_ETCD_KEY name TLS's files.

        Raises InvalidArgument.
        """
        scheme, mark, rest = text.partition("://")
        who, _, where = rest.rpartition("@")
        if scheme not in ("etcd", "etcds") or not mark or not where:
            raise InvalidArgument(f"coordinator {text!r}: needs etcd://host:port[,host:port]")
        try:
            found = [urlsplit(f"//{part}") for part in where.rstrip("/").split(",")]
            members = [(one.hostname or "", one.port or DEFAULT_PORT) for one in found]
        except ValueError as error:
            raise InvalidArgument(f"coordinator {text!r}: {error}") from None
        if not all(host for host, _ in members):
            raise InvalidArgument(f"coordinator {text!r}: a member has no host")
        user, _, password = who.partition(":")
        return EtcdAddress(
            tuple(members),
            scheme == "etcds",
            unquote(user),
            unquote(password) or env.get("HPCORE_ETCD_PASSWORD", ""),
            env.get("HPCORE_ETCD_CA", ""),
            env.get("HPCORE_ETCD_CERT", ""),
            env.get("HPCORE_ETCD_KEY", ""),
        )


class EtcdCoordinator:
    """See membership.coordinator.Coordinator. Raises InvalidArgument without etcd3gw."""

    def __init__(self, address: EtcdAddress, patience_s: float = PATIENCE_S) -> None:
        try:
            import etcd3gw  # noqa: F401
        except ImportError:
            raise InvalidArgument(
                "--coordinator etcd://... needs etcd3gw: pip install 'hpcore[etcd]'"
            ) from None
        self.address = address
        self.patience_s = patience_s
        self._local = threading.local()
        self._preferred = 0
        self._token = ""
        self._watches: set[_EtcdWatch] = set()
        self._closed = threading.Event()

    def get(self, key: str) -> Entry | None:
        """See Coordinator."""
        found = self.call("kv/range", {"key": _encode(key)}).get("kvs", [])
        return _entry(found[0]) if found else None

    def entries(self, prefix: str) -> dict[str, Entry]:
        """See Coordinator."""
        found: dict[str, Entry] = {}
        first, end = _encode(prefix or "\0"), _encode_end(prefix)
        while True:  # in pages: a gateway's answer has a largest size
            page = self.call("kv/range", {"key": first, "range_end": end, "limit": 500})
            for kv in page.get("kvs", []):
                found[base64.b64decode(kv["key"]).decode()] = _entry(kv)
            if not page.get("more"):
                return found
            last = base64.b64decode(page["kvs"][-1]["key"])
            first = base64.b64encode(last + b"\0").decode()

    def swap(
        self, key: str, value: bytes, expected: int, lease: int = 0, guards: tuple[Guard, ...] = ()
    ) -> int | None:
        """See Coordinator. An attempt of unknown outcome is looked after before it is repeated."""
        put: dict[str, Any] = {"key": _encode(key), "value": base64.b64encode(value).decode()}
        if lease:
            put["lease"] = lease
        compare = [_version_is(k, v) for k, v in ((key, expected), *guards)]
        answer = self._change(compare, {"request_put": put})
        if answer is None:
            return None
        if answer.get("succeeded"):
            return int(answer["header"]["revision"])
        found = self.get(key) if answer["doubtful"] else None
        if found is None or found.value != value or found.version <= expected:
            return None
        return found.version

    def delete(self, key: str, expected: int) -> bool:
        """See Coordinator."""
        if not expected:
            return False
        request = {"request_delete_range": {"key": _encode(key)}}
        answer = self._change([_version_is(key, expected)], request)
        assert answer is not None
        return bool(answer.get("succeeded")) or (answer["doubtful"] and self.get(key) is None)

    def grant(self, ttl_s: float) -> int:
        """See Coordinator; etcd counts in whole seconds, and has a least."""
        return int(self.call("lease/grant", {"TTL": max(1, math.ceil(ttl_s)), "ID": 0})["ID"])

    def renew(self, lease: int) -> bool:
        """See Coordinator."""
        answer = self.call("lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def revoke(self, lease: int) -> None:
        """See Coordinator."""
        try:
            self.call("lease/revoke", {"ID": lease})
        except _Refused as error:
            if "lease not found" not in str(error):
                raise

    def watch(self, prefix: str) -> Watch:
        """See Coordinator."""
        watch = _EtcdWatch(self, prefix)
        self._watches.add(watch)
        return watch

    def close(self) -> None:
        """See Coordinator."""
        self._closed.set()
        for watch in list(self._watches):
            watch.close()

    def forget(self, watch: _EtcdWatch) -> None:
        """A watch was closed."""
        self._watches.discard(watch)

    def _change(
        self, compare: list[dict[str, Any]], request: dict[str, Any]
    ) -> dict[str, Any] | None:
        """One transaction; None if its lease is gone."""
        doubts: list[str] = []
        body = {"compare": compare, "success": [request]}
        try:
            answer = self.call("kv/txn", body, doubts)
        except _Refused as error:
            if "lease not found" in str(error):
                return None
            raise
        return {**answer, "doubtful": bool(doubts)}

    def call(
        self, path: str, body: dict[str, Any], doubts: list[str] | None = None
    ) -> dict[str, Any]:
        """One request, to whichever member answers; `doubts` gets why earlier ones may have acted.

        Raises CoordinatorUnavailable, and _Refused for an error that asking again will not mend.
        """
        until = time.monotonic() + self.patience_s
        reasons: dict[int, str] = {}
        while not self._closed.is_set():
            for step in range(len(self.address.members)):
                index = (self._preferred + step) % len(self.address.members)
                try:
                    answer = self._ask(index, path, body)
                    self._preferred = index
                    return answer
                except _Away as error:
                    reasons[index] = str(error)
                    if doubts is not None:
                        doubts.append(str(error))
            if time.monotonic() > until:
                break
            self._closed.wait(0.05)
        members = ", ".join(f"{host}:{port}" for host, port in self.address.members)
        why = "; ".join(dict.fromkeys(reasons.values())) or "closed"
        raise CoordinatorUnavailable(
            f"etcd at {members} did not answer {path} within {self.patience_s:.1f} s: {why[:300]}"
        )

    def _ask(self, index: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
        from etcd3gw.exceptions import Etcd3Exception

        client = self.client(index)
        try:
            answer: dict[str, Any] = client.post(client.get_url(path), json=body)
            return answer
        except Etcd3Exception as error:
            text = _text(error)
            if "auth token" in text or "user name is empty" in text:
                self._authenticate(client)
                raise _Away("the token had run out") from None
            if any(sign in text for sign in _TRANSIENT) or not text.startswith("{"):
                raise _Away(text) from None
            raise _Refused(f"etcd refused {path}: {text}") from None

    def client(self, index: int) -> Any:
        """This thread's connection to a member."""
        from etcd3gw.client import Etcd3Client

        clients: dict[int, Any] = self._local.__dict__.setdefault("clients", {})
        if index not in clients:
            host, port = self.address.members[index]
            clients[index] = Etcd3Client(
                host=host,
                port=port,
                protocol="https" if self.address.tls else "http",
                ca_cert=self.address.ca or None,
                cert_cert=self.address.cert or None,
                cert_key=self.address.key or None,
                timeout=CALL_S,
                api_path="/v3/",
            )
            clients[index].session.trust_env = False  # no proxy between an agent and etcd
        client = clients[index]
        if self._token:
            client.session.headers["Authorization"] = self._token
        if self.address.user and not self._token:
            self._authenticate(client)
        return client

    def _authenticate(self, client: Any) -> None:
        from etcd3gw.exceptions import Etcd3Exception

        if not self.address.user:
            raise _Refused("etcd wants a user: etcd://user:password@host:port")
        body = {"name": self.address.user, "password": self.address.password}
        client.session.headers.pop("Authorization", None)
        try:
            self._token = client.post(client.get_url("auth/authenticate"), json=body)["token"]
        except Etcd3Exception as error:
            text = _text(error)
            if "authentication failed" in text:
                raise _Refused(f"etcd refused user {self.address.user!r}: {text}") from None
            raise _Away(text) from None
        client.session.headers["Authorization"] = self._token


_TRANSIENT = ("leader", "timed out", "timeout", "unavailable", "too many requests", "stopped")


class _Away(Exception):
    """One member did not answer; another may."""


class _Refused(CoordinatorUnavailable):
    """etcd answered, and the answer is no."""


def _text(error: Any) -> str:
    return str(getattr(error, "detail_text", None) or error)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _encode_end(prefix: str) -> str:
    raw = prefix.encode()
    return base64.b64encode(raw[:-1] + bytes([raw[-1] + 1]) if raw else b"\0").decode()


def _entry(kv: dict[str, Any]) -> Entry:
    value = base64.b64decode(kv.get("value", ""))
    return Entry(value, int(kv["mod_revision"]), int(kv.get("lease", 0)))


def _version_is(key: str, version: int) -> dict[str, Any]:
    return {
        "key": _encode(key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": version,
    }


class _EtcdWatch:
    """A thread reads the stream; each message, each new stream means: look again."""

    def __init__(self, coordinator: EtcdCoordinator, prefix: str) -> None:
        self._coordinator = coordinator
        self._prefix = prefix
        self._news = threading.Event()
        self._closed = threading.Event()
        self._ready = threading.Event()
        self._response: Any = None
        self._thread = threading.Thread(target=self._follow, name="etcd-watch", daemon=True)
        self._thread.start()
        self._ready.wait(coordinator.patience_s)

    def wait(self, timeout_s: float) -> bool:
        changed = self._news.wait(timeout_s)
        self._news.clear()
        return changed and not self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        self._news.set()
        self._coordinator.forget(self)
        response = self._response
        if response is not None:
            try:  # its reader sleeps in a read
                with socket.socket(fileno=os.dup(response.raw.fileno())) as stream:
                    stream.shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError, AttributeError):
                pass
        self._thread.join(5.0)

    def _follow(self) -> None:
        count = len(self._coordinator.address.members)
        index = 0
        while not self._closed.is_set():
            try:
                self._read(index % count)
            except Exception:  # whatever it was: another stream, and look again meanwhile
                pass
            index += 1
            self._news.set()
            self._closed.wait(0.1)

    def _read(self, index: int) -> None:
        client = self._coordinator.client(index)
        request = {"key": _encode(self._prefix or "\0"), "range_end": _encode_end(self._prefix)}
        with client.session.post(
            client.get_url("watch"),
            json={"create_request": request},
            stream=True,
            timeout=(CALL_S, 30.0),
        ) as response:
            self._response = response
            for line in response.iter_lines(chunk_size=1):
                if self._closed.is_set():
                    return
                if line:
                    told = json.loads(line)
                    if "result" not in told:
                        return
                    self._news.set()
                    self._ready.set()
