"""What SharedStore promises to one process, to threads and to several processes."""

from __future__ import annotations

import os
import threading

import pytest

from hpcore import _core, errors


@pytest.fixture
def store() -> _core.SharedStore:
    return _core.SharedStore.create(1 << 20)


def test_store_returns_what_was_set(store: _core.SharedStore) -> None:
    for value in (b"", b"x", b"\0binary\xff", b"z" * 200_000):
        store.set("k", value)
        assert store.get("k", 0.0) == value
    assert store.num_keys() == 1
    assert store.keys() == ["k"]


def test_store_accepts_text_and_empty_keys(store: _core.SharedStore) -> None:
    store.set("", "text")
    assert store.get("", 0.0) == b"text"


def test_store_deadline_names_the_key(store: _core.SharedStore) -> None:
    with pytest.raises(errors.DeadlineExceeded, match="key 'absent'"):
        store.get("absent", 0.01)
    with pytest.raises(errors.DeadlineExceeded, match="key 'absent'"):
        store.set("there", b"")
        store.wait(["there", "absent"], 0.01)
    with pytest.raises(TimeoutError):
        store.queue_pop("absent", True, 0.01)


def test_store_counts(store: _core.SharedStore) -> None:
    assert store.add("n", 5) == 5
    assert store.add("n", -7) == -2
    assert store.get("n", 0.0) == b"-2"
    store.set("n", b"40")
    assert store.add("n", 2) == 42
    store.set("n", b"word")
    with pytest.raises(errors.InvalidArgument, match="'word'"):
        store.add("n", 1)
    store.set("n", str(2**63 - 1).encode())
    with pytest.raises(errors.InvalidArgument, match="overflows"):
        store.add("n", 1)


def test_store_compares_before_it_sets(store: _core.SharedStore) -> None:
    assert store.compare_set("k", "wrong", "new") == b"wrong"
    assert not store.check(["k"])
    assert store.compare_set("k", "", "first") == b"first"
    assert store.compare_set("k", "wrong", "second") == b"first"
    assert store.compare_set("k", "first", "second") == b"second"
    assert store.get("k", 0.0) == b"second"


def test_store_forgets_deleted_keys(store: _core.SharedStore) -> None:
    store.multi_set(["a", "b", "c"], [b"1", b"2", b"3"])
    store.queue_push("b", b"item")
    assert store.delete("b")
    assert not store.delete("b")
    assert store.queue_len("b") == 0
    assert not store.check(["a", "b"])
    assert store.check(["a", "c"])
    assert store.num_keys() == 2
    assert store.multi_get(["c", "a"], 0.0) == [b"3", b"1"]
    with pytest.raises(errors.InvalidArgument, match="2 keys but 1 values"):
        store.multi_set(["a", "b"], [b""])


def test_store_appends(store: _core.SharedStore) -> None:
    expected = b""
    for i in range(300):
        piece = bytes([i % 251]) * (i % 17)
        store.append("log", piece)
        expected += piece
    assert store.get("log", 0.0) == expected


def test_store_queue_keeps_its_order(store: _core.SharedStore) -> None:
    for i in range(100):
        store.queue_push("q", str(i))
    assert store.queue_len("q") == 100
    assert store.check(["q"])
    assert [int(store.queue_pop("q", False)) for _ in range(100)] == list(range(100))
    assert not store.check(["q"])
    assert store.num_keys() == 0
    with pytest.raises(errors.NotFound, match="'q' is empty"):
        store.queue_pop("q", False)


def test_store_full_names_key_and_sizes_and_goes_on(store: _core.SharedStore) -> None:
    with pytest.raises(errors.OutOfSpace, match=r"'big' needs \d+ bytes, \d+ of 1048576 are free"):
        store.set("big", b"x" * (2 << 20))
    i = 0
    with pytest.raises(errors.OutOfSpace):
        for i in range(1000):
            store.set(f"k{i}", bytes([i % 256]) * 5000)
    assert i > 150
    assert all(store.get(f"k{j}", 0.0) == bytes([j % 256]) * 5000 for j in range(i))
    for j in range(i):
        store.delete(f"k{j}")
    store.set("big", b"x" * 900_000)  # neighbours were joined again
    assert store.get("big", 0.0) == b"x" * 900_000


def test_store_memory_does_not_wear_out(store: _core.SharedStore) -> None:
    store.set("stays", b"s" * 1000)
    before = store.free_bytes()
    for i in range(3000):
        store.set(f"k{i % 7}", bytes(i * 37 % 60_000))
        store.append(f"a{i % 3}", b"y" * 100)
        if i % 100 == 0:
            for k in range(3):
                store.delete(f"a{k}")
    for key in list(store.keys()):
        if key != "stays":
            store.delete(key)
    assert store.get("stays", 0.0) == b"s" * 1000
    assert store.free_bytes() >= before - 1024


def test_store_refuses_long_keys_and_foreign_memory(store: _core.SharedStore) -> None:
    with pytest.raises(errors.InvalidArgument, match="65536"):
        store.set("k" * 70_000, b"")
    with pytest.raises(errors.InvalidArgument, match="at least 65536"):
        _core.SharedStore.create(100)
    fd = os.memfd_create("not a store")
    os.ftruncate(fd, 1 << 20)
    with pytest.raises(errors.CorruptData, match="holds no store"):
        _core.SharedStore.open(fd)
    os.ftruncate(fd, 0)
    with pytest.raises(errors.SystemCallError, match="0 bytes"):
        _core.SharedStore.open(fd)
    os.close(fd)
    with pytest.raises(errors.SystemCallError, match="cannot open"):
        _core.SharedStore.open_path("/proc/self/fd/999999")


def test_store_wakes_waiters_of_other_threads(store: _core.SharedStore) -> None:
    seen: list[bytes] = []
    threads = [
        threading.Thread(target=lambda k=k: seen.append(store.get(k, 30.0)))
        for k in ("a", "b", "a")
    ]
    threads.append(threading.Thread(target=lambda: seen.append(store.queue_pop("q", True, 30.0))))
    for thread in threads:
        thread.start()
    store.set("a", b"A")
    store.queue_push("q", b"Q")
    store.set("b", b"B")
    for thread in threads:
        thread.join(30.0)
    assert sorted(seen) == [b"A", b"A", b"B", b"Q"]


def test_store_close_ends_waits(store: _core.SharedStore) -> None:
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            store.get("never", 30.0)
        except errors.Aborted as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    store.close()
    store.close()
    thread.join(30.0)
    assert len(raised) == 1
    assert "closed" in str(raised[0])


def test_store_is_shared_through_descriptor_and_proc(store: _core.SharedStore) -> None:
    store.set("k", b"v")
    by_fd = _core.SharedStore.open(store.fd)
    by_path = _core.SharedStore.open_path(f"/proc/{os.getpid()}/fd/{store.fd}")
    assert by_fd.get("k", 0.0) == by_path.get("k", 0.0) == b"v"
    by_path.set("k", b"w")
    assert store.get("k", 0.0) == b"w"
