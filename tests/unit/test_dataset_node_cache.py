"""The node cache: what was put is found whole or not at all, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpcore import _core
from hpcore.errors import CorruptData, InvalidArgument

MIB = 1 << 20


def record(number: int, size: int) -> bytes:
    return bytes([number % 251 + 1]) * size


@contextmanager
def writer(cache: _core.NodeCache, size: int) -> Iterator[int]:
    """A process that puts records for ever; killed at the end, if not before."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            number = 0
            while True:
                cache.put(1, number, record(number, size))
                os.write(tell, b"x") if number == 1 else None
                number += 1
        finally:
            os._exit(1)
    try:
        os.close(tell)
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_node_cache_gives_back_what_was_put() -> None:
    cache = _core.NodeCache.create(4 * MIB)
    assert cache.get(1, 5) is None
    for size in (0, 1, 63, 64, 100_000):
        assert cache.put(1, size, record(size, size))
        assert cache.get(1, size) == record(size, size)
    assert cache.get(2, 1) is None
    assert cache.put(1, 1, b"anew")
    assert cache.get(1, 1) == b"anew"
    counted = cache.counters()
    assert (counted["hits"], counted["misses"], counted["kept"]) == (6, 2, 6)


def test_node_cache_forgets_the_oldest() -> None:
    cache = _core.NodeCache.create(MIB)
    for number in range(100):
        cache.put(1, number, record(number, 50_000))
    found = [number for number in range(100) if cache.get(1, number) is not None]
    assert found == list(range(found[0], 100))
    assert 15 <= len(found) <= 20
    assert all(cache.get(1, number) == record(number, 50_000) for number in found)


def test_node_cache_refuses_a_record_that_would_fill_it() -> None:
    cache = _core.NodeCache.create(MIB)
    assert not cache.put(1, 1, bytes(MIB // 4))
    assert cache.get(1, 1) is None
    assert cache.counters()["refused"] == 1
    with pytest.raises(InvalidArgument, match="1 MiB"):
        _core.NodeCache.create(5)


def test_node_cache_is_shared_by_its_descriptor() -> None:
    cache = _core.NodeCache.create(MIB)
    other = _core.NodeCache.attach(os.dup(cache.fd))
    cache.put(3, 4, b"seen by both")
    del cache
    assert other.get(3, 4) == b"seen by both"


def test_node_cache_does_not_take_another_memory_for_its_own() -> None:
    for size in (0, 3 * MIB):
        memory = os.memfd_create("hpcore-test")
        os.ftruncate(memory, size)
        with pytest.raises(CorruptData, match="no node cache"):
            _core.NodeCache.attach(memory)


def test_node_cache_never_gives_a_spoiled_record() -> None:
    # What a writer leaves that was stopped for so long that the ring came round.
    cache = _core.NodeCache.create(MIB)
    cache.put(1, 7, record(7, 1000))
    size = os.fstat(cache.fd).st_size
    content = os.pread(cache.fd, size, 0)
    at = content.index(record(7, 1000))
    for place in (at + 500, at - 8, at - 20, at - 40):  # data, checksum, length, key
        byte = os.pread(cache.fd, 1, place)
        os.pwrite(cache.fd, bytes([byte[0] ^ 4]), place)
        assert cache.get(1, 7) is None
        os.pwrite(cache.fd, byte, place)
        assert cache.get(1, 7) == record(7, 1000)
    assert cache.counters()["spoiled"] == 4


def test_node_cache_survives_writers_killed_at_any_moment() -> None:
    cache = _core.NodeCache.create(16 * MIB)
    size = 3 * MIB + 17  # longer in the writing than between records
    for _ in range(8):
        with writer(cache, size):
            pass
        for number in range(200):
            found = cache.get(1, number)
            assert found is None or found == record(number, size)
        assert cache.put(2, 0, b"goes on")
        assert cache.get(2, 0) == b"goes on"


def test_node_cache_is_read_while_it_is_written() -> None:
    cache = _core.NodeCache.create(2 * MIB)
    seen = 0
    with writer(cache, 10_000):
        for _ in range(3):
            for number in range(2000):
                found = cache.get(1, number)
                if found is not None:
                    assert found == record(number, 10_000)
                    seen += 1
    assert seen > 0


def test_node_cache_serves_threads() -> None:
    cache = _core.NodeCache.create(MIB)
    wrong: list[int] = []

    def work(offset: int) -> None:
        for number in range(offset, 3000, 3):
            cache.put(1, number, record(number, 5000))
            found = cache.get(1, number)
            if found is not None and found != record(number, 5000):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
