"""Files behind URLs, fetched once per node: whoever comes first fetches, the others wait for it.

A file appears in the cache folder under its name only when it is whole. A lock of the kernel's
(flock) says who fetches, so a fetcher that is killed lets go of it at once; the next one removes
what it left and begins anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from hpcore.errors import CorruptData, NotFound, Unsupported

_PIECE = 8 << 20


def default_folder() -> Path:
    """``$HPCORE_CACHE_DIR``, else hpcore-data-<user> in the folder for temporary files."""
    named = os.environ.get("HPCORE_CACHE_DIR", "")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"hpcore-data-{os.getuid()}"


def fetch(url: str, cache_dir: str | None = None) -> Path:
    """The local copy of a file behind a URL that fsspec knows; blocks while it is fetched.

    A copy is of one state of the file (fsspec's `ukey`: etag, checksum, time): a changed file is
    fetched anew, beside the old copy, which stays for who has it open. Raises NotFound, Unsupported
    (no fsspec, or no driver for the URL), CorruptData (the file ended early), OSError.
    """
    system, name = _locate(url)
    try:
        size, state = int(system.info(name)["size"]), str(system.ukey(name))
    except FileNotFoundError as error:
        raise NotFound(f"there is no dataset {url}") from error
    folder = Path(cache_dir) if cache_dir else default_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = hashlib.sha256(f"{url}\0{state}\0{size}".encode()).hexdigest()[:24]
    target = folder / f"{key}-{Path(name).name}"
    if _is_whole(target, size):
        return target
    with open(folder / f".{key}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(target, size):
            _download(system, name, target, size, url)
    return target


def _locate(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise Unsupported(f"{url} needs fsspec: pip install fsspec") from error
    try:
        system, name = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise Unsupported(f"{url}: {error}") from error
    return system, name


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _download(system: Any, name: str, target: Path, size: int, url: str) -> None:
    """Holds the lock. What a killed fetcher left has the same name, and is overwritten."""
    partial = target.with_name(f".{target.name}.partial")
    done = 0
    try:
        with system.open(name, "rb") as source, open(partial, "wb") as copy:
            while piece := source.read(_PIECE):
                copy.write(piece)
                done += len(piece)
            if done != size:
                raise CorruptData(
                    f"{url} ended after {done} bytes, should have {size}: fetch it again"
                )
            copy.flush()
            os.fsync(copy.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
