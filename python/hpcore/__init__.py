"""Training that does not stop: checkpointless, elastic distributed PyTorch.
 Names are imported when they are first used: `import hpcore` needs neither torch nor the native
library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcore.errors import (
    Aborted,
    CorruptData,
    DeadlineExceeded,
    HpcoreError,
    InvalidArgument,
    JobStopped,
    MismatchError,
    RosterChanged,
    Unsupported,
)

if TYPE_CHECKING:
    from hpcore.batches import MicroBatch
    from hpcore.dataset import MappedDataset
    from hpcore.job import Job
    from hpcore.pickled import Pickled
    from hpcore.step import Step
    from hpcore.store import Store

__all__ = [
    "Aborted",
    "CorruptData",
    "DeadlineExceeded",
    "HpcoreError",
    "InvalidArgument",
    "Job",
    "JobStopped",
    "MappedDataset",
    "MicroBatch",
    "MismatchError",
    "Pickled",
    "RosterChanged",
    "Step",
    "Store",
    "Unsupported",
]

_LAZY = {
    "Job": "hpcore.job",
    "MappedDataset": "hpcore.dataset",
    "MicroBatch": "hpcore.batches",
    "Pickled": "hpcore.pickled",
    "Step": "hpcore.step",
    "Store": "hpcore.store",
}


def _version() -> str:
    try:
        from hpcore._version import version
    except ImportError:  # a source tree on the path, never built by make or pip
        return "0+unknown"
    return str(version)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _LAZY:
        raise AttributeError(f"module 'hpcore' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
