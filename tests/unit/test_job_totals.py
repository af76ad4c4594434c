"""Sums given to commit: in exact mode the same to the bit however values are dealt to ranks."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from hpcore.errors import InvalidArgument
from hpcore.totals import Totals


def summed(ranks: list[dict[str, Any]], exact: bool = True) -> dict[str, float]:
    parts = [Totals(sums, exact).encode(True) for sums in ranks]
    control = torch.tensor(parts, dtype=torch.float64).sum(dim=0).tolist()
    return Totals(ranks[0], exact).decode(control)


def test_exact_totals_do_not_depend_on_the_deal() -> None:
    draw = random.Random(4)
    values = [math.ldexp(draw.uniform(-1, 1), draw.randrange(-1070, 1000)) for _ in range(40)]
    values += [-value for value in values[:20]] + [0.1, 5e-324, 2.0**-1060]
    wanted = math.fsum(values)
    for ranks in (1, 2, 3, 5, 8):
        draw.shuffle(values)
        dealt = [values[rank::ranks] for rank in range(ranks)] + [[]]
        got = summed([{"loss": part, "count": len(part)} for part in dealt])
        assert got == {"loss": wanted, "count": float(len(values))}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1e308, 1e308], math.inf),
        ([1e308, 1e308, -1e308], 1e308),
        ([-1e308, -1e308], -math.inf),
        ([math.inf, 1.0], math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, math.inf], math.nan),
        ([], 0.0),
    ],
)
def test_exact_totals_of_extremes(values: list[float], wanted: float) -> None:
    found = [
        summed([{"a": values}])["a"],
        summed([{"a": values[:1]}, {"a": values[1:]}])["a"],
    ]
    assert all(f == wanted or (math.isnan(f) and math.isnan(wanted)) for f in found)


def test_exact_totals_take_tensors_and_refuse_a_ranks_own_total() -> None:
    got = summed([{"a": torch.tensor([0.5, 0.25]), "n": torch.tensor(3)}, {"a": [], "n": 4}])
    assert got == {"a": 0.75, "n": 7.0}
    for total in (0.3, torch.tensor(0.3)):
        with pytest.raises(InvalidArgument, match="one value for each"):
            Totals({"loss": total}, exact=True).encode(True)


def test_plain_totals_take_lists_too() -> None:
    assert summed([{"a": [0.5, 1.0], "b": 1}, {"a": 2.0, "b": torch.tensor(2.0)}], exact=False) == {
        "a": 3.5,
        "b": 3.0,
    }
    assert Totals({"a": 2.0}, exact=False).encode(False) == [0.0]
