"""The demo's text: the Python standard library's own sources on this machine, as a dataset."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from hpcore import dataset

_NOT_THE_LIBRARY = ("site-packages", "dist-packages", "__pycache__", "test", "idlelib")


def library_sources() -> list[Path]:
    """Source files of the standard library, in a fixed order; tests and installed packages left
    out.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = (path for path in root.rglob("*.py") if path.is_file())
    return sorted(
        path for path in files if not set(path.relative_to(root).parts) & set(_NOT_THE_LIBRARY)
    )


def build(out: Path, max_bytes: int) -> dataset.DatasetInfo:
    """Builds the dataset. Raises InvalidArgument if this Python has no sources, OSError."""
    return dataset.build_text(library_sources(), out, max_bytes=max_bytes)
