"""Fault drills: a worker hurts itself at a named point, once a job.
 Rules come from `hpcore run --inject` through HPCORE_FAULTS, separated by ';' or line ends: `rank=1
step=3 point=backward action=sigkill`; `standby=1` in place of a rank means a worker without one;
without `step` the first time counts. Runs on the training thread.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from hpcore.errors import InvalidArgument

POINTS = (
    "forward",
    "backward",
    "before_ready",
    "after_ready",
    "after_commit",
    "optimizer",
    "notify",
    "reform",
    "heal",
    "rehearsal",
)
ACTIONS = ("sigkill", "sigstop", "exception", "hang")


class DrillError(RuntimeError):
    """The exception that a drill throws."""


@dataclass(frozen=True)
class Rule:
    """One fault to come. `index`: its bit in the job's fault mask; `rank` None: a standby."""

    index: int
    point: str
    action: str
    rank: int | None
    step: int | None


def parse(text: str) -> list[Rule]:
    """The rules of HPCORE_FAULTS. Raises InvalidArgument with the rule that is wrong."""
    lines = [line.strip() for line in text.replace(";", "\n").splitlines()]
    return [_rule(index, line) for index, line in enumerate(line for line in lines if line)]


def _rule(index: int, line: str) -> Rule:
    if index >= 64:
        raise InvalidArgument(f"more than 64 faults: {line!r} is one too many")
    words: dict[str, str] = {}
    for word in line.split():
        key, found, value = word.partition("=")
        if not found or key not in ("rank", "standby", "step", "point", "action") or key in words:
            raise InvalidArgument(f"fault {line!r}: {word!r} is not understood; {_usage()}")
        words[key] = value
    point, action = words.get("point", ""), words.get("action", "")
    if point not in POINTS or action not in ACTIONS or ("rank" in words) == ("standby" in words):
        raise InvalidArgument(f"fault {line!r} is not understood; {_usage()}")
    try:
        rank = int(words["rank"]) if "rank" in words else None
        step = int(words["step"]) if "step" in words else None
    except ValueError as error:
        raise InvalidArgument(f"fault {line!r}: {error}; {_usage()}") from error
    return Rule(index, point, action, rank, step)


def _usage() -> str:
    return (
        'write "rank=1 step=3 point=backward action=sigkill", or standby=1 for a rank; '
        f"points: {', '.join(POINTS)}; "
        f"actions: {', '.join(ACTIONS)}"
    )


class Drill:
    """The rules of this job, and how they are carried out.

    `fire_once(index)` is true for the first caller in the job; `record(rule, step)` writes the
    event before the fault.
    """

    def __init__(
        self,
        rules: list[Rule],
        fire_once: Callable[[int], bool],
        record: Callable[[Rule, int], None],
    ) -> None:
        self._rules = rules
        self._fire_once = fire_once
        self._record = record
        self._spent: set[int] = set()

    def armed(self, point: str, rank: int | None, step: int) -> bool:
        """Whether a rule waits for this point, rank (None: a standby) and step."""
        return bool(self._rules) and self._match(point, rank, step) is not None

    def fire(
        self,
        point: str,
        rank: int | None,
        step: int,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Carries out the rule for this point, after `before`, if it has not fired yet."""
        if not self._rules:
            return
        rule = self._match(point, rank, step)
        if rule is None:
            return
        self._spent.add(rule.index)
        if self._fire_once(rule.index):
            self._record(rule, step)
            before()
            _hurt(rule, step)

    def hooks(
        self, rank: int | None, step: int, places: Mapping[str, Callable[[Callable[[], None]], Any]]
    ) -> list[Any]:
        """Registers what fires in this step; `places`: point -> how to have something called there.

        Returns what `places` return, to be removed at the end of the step.
        """
        return [
            register(partial(self.fire, point, rank, step))
            for point, register in places.items()
            if self.armed(point, rank, step)
        ]

    def _match(self, point: str, rank: int | None, step: int) -> Rule | None:
        for rule in self._rules:
            if (
                rule.point == point
                and rule.rank == rank
                and rule.step in (None, step)
                and rule.index not in self._spent
            ):
                return rule
        return None


def _hurt(rule: Rule, step: int) -> None:
    if rule.action == "exception":
        raise DrillError(f"drill: {rule.point} in step {step}")
    if rule.action == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if rule.action == "sigstop":
        os.kill(os.getpid(), signal.SIGSTOP)
        return  # continued by somebody: as if nothing had happened
    while rule.action == "hang":
        time.sleep(3600)


def job_drill(faults: str, worker: Any, record: Callable[..., None]) -> Drill:
    """The drill of a job: each rule fires once in it; `record(event, **fields)` writes events."""

    def fire_once(index: int) -> bool:
        return bool(worker is not None and worker.segment.fire_fault(index))

    def record_fault(rule: Rule, step: int) -> None:
        rank = -1 if rule.rank is None else rule.rank
        record("fault_injected", rank=rank, step=step, point=rule.point, action=rule.action)

    return Drill(parse(faults), fire_once, record_fault)


def no_drill() -> Drill:
    """A drill without rules."""

    return Drill([], lambda _: False, lambda *_: None)


def apply_half(optimizer: Any) -> None:
    """An optimizer step that stops in the middle, for drills: half of the parameters have moved."""
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in tensors]
    for parameter in tensors[len(tensors) // 2 :]:
        parameter.grad = None
    optimizer.step()
    for parameter, gradient in zip(tensors, gradients, strict=True):
        parameter.grad = gradient
