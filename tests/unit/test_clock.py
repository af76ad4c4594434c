"""The native clock is the one that Python reads: times of several processes can be compared."""

import time

from hpcore import _core


def test_monotonic_ns_is_pythons_clock() -> None:
    before = time.monotonic_ns()
    seen = _core.monotonic_ns()
    assert before <= seen <= time.monotonic_ns()
