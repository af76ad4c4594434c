"""URLs: fetched once, whole or not at all, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dataset_files import token_file

from hpcore.dataset import MappedDataset, remote
from hpcore.errors import CorruptData, NotFound, Unsupported

fsspec = pytest.importorskip("fsspec")

FETCH = """
import sys
from hpcore.dataset import remote

url, folder, piece = sys.argv[1], sys.argv[2], int(sys.argv[3])
if piece:
    remote._PIECE = piece
    original = remote._download

    def slow(system, name, target, size, url):
        opened = system.open

        def watched(*arguments):
            stream = opened(*arguments)
            read = stream.read

            def told(count):
                data = read(count)
                print("piece", flush=True)
                sys.stdin.readline()
                return data

            stream.read = told
            return stream

        system.open = watched
        original(system, name, target, size, url)

    remote._download = slow
print(remote.fetch(url, folder), flush=True)
"""


def fetcher(url: str, folder: Path, piece: int = 0) -> subprocess.Popen[str]:
    """A process that fetches; with a piece size it says each piece and waits for a line."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, url, str(folder), str(piece)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_remote_memory_file_is_read_like_a_local_one(tmp_path: Path) -> None:
    path, tokens = token_file(tmp_path)
    system = fsspec.filesystem("memory")
    try:
        system.pipe("/hpcore-test/tokens.hpd", path.read_bytes())
        cache = tmp_path / "cache"
        url = "memory://hpcore-test/tokens.hpd"
        data = MappedDataset(url, 10, cache_dir=str(cache))
        assert data[3].tolist() == tokens[30:41].tolist()
        assert data.path == url
        kept = [entry for entry in cache.iterdir() if not entry.name.startswith(".")]
        assert len(kept) == 1
        again = remote.fetch(url, str(cache))
        assert again == kept[0]
        system.rm("/hpcore-test/tokens.hpd")
        with pytest.raises(NotFound, match="no dataset memory"):
            remote.fetch(url, str(cache))
    finally:
        system.store.clear()


def test_remote_file_that_changed_is_fetched_anew(tmp_path: Path) -> None:
    path, _ = token_file(tmp_path)
    cache = tmp_path / "cache"
    first = remote.fetch(f"file://{path}", str(cache))
    assert remote.fetch(f"file://{path}", str(cache)) == first
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    second = remote.fetch(f"file://{path}", str(cache))
    assert second != first
    assert first.read_bytes() == content


def test_remote_fetcher_killed_leaves_nothing_wrong(tmp_path: Path) -> None:
    path, _ = token_file(tmp_path, 300_000)
    cache, url = tmp_path / "cache", f"file://{path}"
    killed = fetcher(url, cache, piece=1 << 20)
    assert killed.stdin and killed.stdout
    with killed:
        for _ in range(2):
            assert killed.stdout.readline() == "piece\n"
            killed.stdin.write("\n")
            killed.stdin.flush()
        assert not [entry for entry in cache.iterdir() if not entry.name.startswith(".")]
        waiting = fetcher(url, cache)
        assert waiting.stdout
        with waiting:
            killed.send_signal(signal.SIGKILL)
            found = Path(waiting.stdout.readline().strip())
            assert waiting.wait(60) == 0
    assert found.read_bytes() == path.read_bytes()
    assert not list(cache.glob(".*.partial"))


def test_remote_is_fetched_once_by_many(tmp_path: Path) -> None:
    path, _ = token_file(tmp_path)
    cache, url = tmp_path / "cache", f"file://{path}"
    together = [fetcher(url, cache) for _ in range(3)]
    found = {process.communicate(timeout=60)[0].strip() for process in together}
    assert len(found) == 1
    assert len([entry for entry in cache.iterdir() if not entry.name.startswith(".")]) == 1


def test_remote_file_that_ends_early_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = token_file(tmp_path)
    system = type(fsspec.filesystem("file"))
    told = system.info
    monkeypatch.setattr(
        system, "info", lambda self, name, **k: {**told(self, name, **k), "size": 10**9}
    )
    with pytest.raises(CorruptData, match="ended after"):
        remote.fetch(f"file://{path}", str(tmp_path / "cache"))
    assert not [e for e in (tmp_path / "cache").iterdir() if "lock" not in e.name]


def test_remote_url_of_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="nosuch"):
        remote.fetch("nosuch://bucket/x.hpd", str(tmp_path))


def test_remote_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCORE_CACHE_DIR", "/somewhere")
    assert remote.default_folder() == Path("/somewhere")
    monkeypatch.delenv("HPCORE_CACHE_DIR")
    assert str(os.getuid()) in remote.default_folder().name
