"""Checking in the background what nobody has read yet, so that damage is known before it is met."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Any

from hpcore import _core
from hpcore.errors import CorruptData, InvalidArgument

_BLOCK_BYTES = 256 << 10
_AT_ONCE = 16


class Scrub:
    """A thread that compares each unread block of a ``.hpd`` file with its checksum, at a pace.

    The blocks it has checked need not be checked again by any process of this node that has the
    file open (files of 16 MiB and more). It ends with the process; close() ends it before.

    Args:
        path: the file.
        bytes_per_s: at most; what others have checked costs nothing.

    Raises CorruptData, NotFound if the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, bytes_per_s: float = 128 << 20) -> None:
        if bytes_per_s <= 0:
            raise InvalidArgument(f"bytes_per_s must be positive, not {bytes_per_s}")
        self.path = os.fspath(path)
        self._file: Any = _core.DatasetFile(self.path, True)
        self._pace_s = _AT_ONCE * _BLOCK_BYTES / bytes_per_s
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._whole = False
        self._thread = threading.Thread(target=self._run, name="hpcore-scrub", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Blocks until all is checked, at most so long. True: every block is sound.

        Raises CorruptData, which names file, block and offset.
        """
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        return self._whole

    @property
    def error(self) -> Exception | None:
        """The first damage that was found, without waiting."""
        return self._error

    def close(self) -> None:
        """Ends the thread. Twice is fine."""
        self._closing.set()
        self._thread.join()
        self._file = None

    def _run(self) -> None:
        file = self._file
        try:
            while not self._closing.is_set():
                begin = time.monotonic()
                if file.scrub(_AT_ONCE) == 0:
                    self._whole = True
                    return
                self._closing.wait(max(0.0, self._pace_s - (time.monotonic() - begin)))
        except CorruptData as error:
            self._error = error

    def __enter__(self) -> Scrub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
