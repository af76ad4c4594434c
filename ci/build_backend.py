"""scikit-build-core, plus one thing: a build without torch at hand asks for the pinned torch.

`_c10d` is compiled against torch. Where the environment that hpcore is installed into has that
torch already, it is used (see ci/torch.cmake); otherwise pip puts it into the isolated build
environment.
"""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path
from typing import Any

from scikit_build_core import build as _build
from scikit_build_core.build import (  # noqa: F401  hooks that are handed through
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = Path(__file__).resolve().parent.parent


def pinned_torch() -> str:
    """The version of torch in pyproject.toml, such as "2.13.0"."""
    found = re.search(r'"torch==([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    if found is None:
        raise RuntimeError("pyproject.toml pins no torch: dependencies must hold torch==VERSION")
    return found[1]


def installed_torch() -> str | None:
    """The version of torch in this Python's environment, also when pip hides it from a build."""
    for kind in ("platlib", "purelib"):
        version = Path(sysconfig.get_path(kind), "torch", "version.py")
        if version.is_file():
            found = re.search(r"^__version__ = ['\"]([0-9.]+)", version.read_text(), re.MULTILINE)
            return found[1] if found else None
    return None


def _with_torch(requires: list[str]) -> list[str]:
    pinned = pinned_torch()
    return requires if installed_torch() == pinned else [*requires, f"torch=={pinned}"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What building a wheel needs besides build-system.requires."""
    return _with_torch(_build.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """What an editable install needs besides build-system.requires."""
    return _with_torch(_build.get_requires_for_build_editable(config_settings))
