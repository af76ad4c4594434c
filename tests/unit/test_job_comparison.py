"""Who is the odd one out among replicas: a pure verdict."""

from __future__ import annotations

from typing import Any

import pytest

from hpcore.comparison import Verdict, judge
from hpcore.errors import InvalidArgument
from hpcore.protection import Protection


@pytest.mark.parametrize(
    ("parts", "digests", "verdict"),
    [
        ("aaaa", "xxxx", Verdict()),
        ("aaaa", "xxyx", Verdict((2,))),
        ("aaa", "yxx", Verdict((0,))),
        ("aaaaa", "xyxzx", Verdict((1, 3))),
        ("aa", "xy", Verdict((), ((0, 1),))),
        ("aaaa", "xxyy", Verdict((), ((0, 1, 2, 3),))),
        ("aaa", "xyz", Verdict((), ((0, 1, 2),))),
        ("abab", "xyxy", Verdict()),
        ("abab", "xyxz", Verdict((), ((1, 3),))),
        ("abababa", "xyxywyx", Verdict((4,))),
        ("abcd", "wxyz", Verdict()),
    ],
)
def test_majority_of_each_part_says_who_is_suspect(
    parts: str, digests: str, verdict: Verdict
) -> None:
    assert judge(parts, digests) == verdict


@pytest.mark.parametrize(
    "wrong",
    [
        {"shadow_every": -1},
        {"compare_every": -1},
        {"on_corruption": "ignore"},
        {"checkpoint_every": 3},
    ],
)
def test_protection_refuses_what_it_cannot_do_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        Protection(**wrong)
