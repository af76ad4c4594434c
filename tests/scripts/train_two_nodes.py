"""train_sharded.py as a rank of one of two nodes: the memory for its copies is that of its node."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from train_sharded import main

import hpcore.tiers

if __name__ == "__main__":
    hpcore.tiers.STORE_KEY = f"shadow-node{int(os.environ['HPCORE_SLOT']) % 2}"
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
