"""scikit-build-core, plus one thing: a build without a fitting torch at hand asks for one.

`_c10d` is compiled against torch. Where the environment that hpcore is installed into has a torch
that hpcore knows, that one is used (see ci/torch.cmake); otherwise pip puts the newest of them into
the isolated build environment: the one that pip chooses for hpcore's dependency, too.
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


def known_torch() -> list[str]:
    """The versions of torch in pyproject.toml's [tool.hpcore], such as "2.13.0"; oldest first."""
    found = re.search(r"^torch = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    versions = re.findall(r'"([0-9.]+)"', found[1]) if found else []
    if not versions:
        raise RuntimeError("pyproject.toml: [tool.hpcore] must hold torch = [VERSION, ...]")
    return versions


def installed_torch() -> str | None:
    """The version of torch in this Python's environment, also when pip hides it from a build."""
    for kind in ("platlib", "purelib"):
        version = Path(sysconfig.get_path(kind), "torch", "version.py")
        if version.is_file():
            found = re.search(r"^__version__ = ['\"]([0-9.]+)", version.read_text(), re.MULTILINE)
            return found[1] if found else None
    return None


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _with_torch(requires: list[str], config_settings: Any) -> list[str]:
    if any("HPCORE_TORCH_ROOTS" in setting for setting in config_settings or {}):
        return requires  # ci/wheel.sh says which
    known = [_minor(version) for version in known_torch()]
    installed = installed_torch()
    if installed and _minor(installed) in known:
        return requires
    return [*requires, f"torch=={known[-1]}.*"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What building a wheel needs besides build-system.requires."""
    return _with_torch(_build.get_requires_for_build_wheel(config_settings), config_settings)


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """What an editable install needs besides build-system.requires."""
    return _with_torch(_build.get_requires_for_build_editable(config_settings), config_settings)
