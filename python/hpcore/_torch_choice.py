"""Which native c10d module belongs to which torch. Imports no torch: looks at files only."""

from __future__ import annotations

import importlib.machinery
import re
from pathlib import Path

from hpcore.errors import WrongTorch

_FOLDER = Path(__file__).parent


def minor_of(version: str) -> tuple[int, int]:
    """(2, 13) of "2.13.0+cpu"."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise WrongTorch(f"torch calls itself {version!r}: that is no version with a minor number")
    return int(found[1]), int(found[2])


def built_for(folder: Path = _FOLDER) -> list[tuple[int, int]]:
    """The minors of torch that `folder` holds a c10d module for, oldest first."""
    endings = "|".join(re.escape(ending) for ending in importlib.machinery.EXTENSION_SUFFIXES)
    pattern = re.compile(rf"_c10d_(\d+)_(\d+)(?:{endings})")
    found = [pattern.fullmatch(path.name) for path in folder.glob("_c10d_*")]
    return sorted({(int(match[1]), int(match[2])) for match in found if match})


def native_module(version: str, folder: Path = _FOLDER) -> str:
    """The name of the module for this torch.

    Raises:
        WrongTorch: there is none; says which torch there is one for.
    """
    major, minor = minor_of(version)
    there = built_for(folder)
    if (major, minor) in there:
        return f"_c10d_{major}_{minor}"
    if not there:
        raise WrongTorch(
            f"hpcore's c10d backend is not built in {folder}, for no torch at all; torch {version} "
            "is installed. Build it with that torch installed: make build, or pip install hpcore"
        )
    names = ", ".join(f"{a}.{b}" for a, b in there)
    newest = "{}.{}".format(*there[-1])
    raise WrongTorch(
        f"torch {version} is installed, and hpcore's c10d backend is built for torch {names} "
        f"(in {folder}): c10d's classes differ between minors. Install one of those "
        f"(pip install 'torch=={newest}.*'), or an hpcore that is built for torch {major}.{minor}"
    )
