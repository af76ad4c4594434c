"""The peers of tests/contract serve these tests too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "contract"))
