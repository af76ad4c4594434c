"""The c10d backend and store, from the native module that was built for the torch at hand.

`_c10d_<major>_<minor>`: the class layout of c10d changes between torch's minors, so there is one
for each. What they hold is in the stub beside this file. Imports torch.
"""

from __future__ import annotations

import importlib

import torch

from hpcore import _torch_choice

_native = importlib.import_module(f"hpcore.{_torch_choice.native_module(torch.__version__)}")
__doc__ = _native.__doc__
__all__ = [name for name in vars(_native) if not name.startswith("_")]
globals().update({name: getattr(_native, name) for name in __all__})
