"""Huge pages change where memory lies, never what it holds."""

import ctypes
import mmap
from pathlib import Path

import pytest

from hpcore import _core
from hpcore.agent.environment import template_environment


def huge_kib() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1])
    return 0


def test_huge_pages_keep_the_content() -> None:
    size = 8 << 20
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(i % 251 for i in range(4096)) * (size // 4096))
        before, digest = huge_kib(), _core.digest128(memory)
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        moved = _core.use_huge_pages([(address + 5, size - 10), (address, 100), (address, 0)])
        assert _core.digest128(memory) == digest
        gained = huge_kib() - before
        del view
    if moved == 0:
        pytest.skip("this kernel gives no huge pages")
    assert gained >= 4 << 10


def test_huge_pages_where_nothing_is_mapped_are_refused_quietly() -> None:
    assert _core.use_huge_pages([]) == 0
    assert _core.use_huge_pages([(1 << 46, 4 << 20)]) == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_huge_pages_are_asked_for_unless_the_user_decided(given: str, expected: str) -> None:
    assert template_environment({"GLIBC_TUNABLES": given})["GLIBC_TUNABLES"] == expected
