"""Random programmes of c10d operations, each against a reference computed on one process.

HPCORE_TEST_SEED chooses the programmes, HPCORE_TEST_EXAMPLES how many; a failure says which ones
to give to see it again, and HPCORE_TEST_SHRINK=1 looks for a smaller one (it takes minutes).
"""

from __future__ import annotations

import os

import pytest
import torch
from c10d_layouts import LAYOUTS
from c10d_programme import MOVING, REDUCING, Programme, Runner, Step, shares_of
from c10d_ranks import run_ranks
from c10d_reference import COMPLEX, MOVED, REDUCED, reductions
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:ComplexHalf")]

SEED = int(os.environ.get("HPCORE_TEST_SEED", "20260"))
EXAMPLES = int(os.environ.get("HPCORE_TEST_EXAMPLES", "60"))
SHRINK = (Phase.shrink,) if os.environ.get("HPCORE_TEST_SHRINK") else ()
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate, *SHRINK),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
STEPS = 30

small = st.lists(st.integers(0, 6), max_size=3).map(tuple)
long = st.tuples(st.integers(0, 5_000))
# More than a staging buffer of 4 ranks: several steps.
longer = st.tuples(st.integers(90_000, 300_000))
shapes = st.one_of(small, small, small, long, long, longer)


@st.composite
def steps(draw: st.DrawFn, groups: tuple[tuple[int, ...], ...]) -> Step:
    group = draw(st.integers(0, len(groups) - 1))
    kind = draw(st.sampled_from(REDUCING + MOVING))
    if kind == "message" and len(groups[group]) == 1:
        kind = "barrier"
    dtype = draw(st.sampled_from(REDUCED if kind in REDUCING else MOVED))
    reduction = draw(st.sampled_from(reductions(dtype))) if kind in REDUCING else ""
    direct = draw(st.booleans())
    if reduction == "PRODUCT" and dtype in COMPLEX:  # torch refuses it before the backend sees it
        kind, direct = "all_reduce", True
    return Step(
        kind,
        group,
        dtype,
        reduction,
        draw(shapes),
        draw(st.sampled_from(LAYOUTS)),
        root=draw(st.integers(0, 3)),
        waits=draw(st.booleans()),
        direct=direct,
        seed=draw(st.integers(0, 10_000)),
    )


@st.composite
def programmes(draw: st.DrawFn) -> Programme:
    world_size = draw(st.integers(1, 4))
    subset = st.sets(st.integers(0, world_size - 1), min_size=1).map(lambda s: tuple(sorted(s)))
    groups = (tuple(range(world_size)), *draw(st.lists(subset, max_size=3)))
    listed = draw(st.lists(steps(groups), min_size=STEPS // 2, max_size=STEPS))
    return Programme(world_size, groups, tuple(listed))


@seed(SEED)
@SETTINGS
@given(programmes())
def test_c10d_programmes_equal_the_reference(programme: Programme) -> None:
    note(
        f"again: HPCORE_TEST_SEED={SEED} HPCORE_TEST_EXAMPLES={EXAMPLES} python -m pytest "
        "tests/contract/test_c10d_programmes.py"
    )
    torch.set_num_threads(1)
    shares = [shares_of(step, len(programme.groups[step.group])) for step in programme.steps]
    run_ranks(programme.world_size, lambda rank: Runner(programme, shares, rank).run())
