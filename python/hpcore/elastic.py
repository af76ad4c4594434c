"""The scaling policy of a job: `plan(policy, scaling, event, now_s) -> Plan`. Pure: no clock, no
I/O.

`Policy` says which numbers of ranks are allowed and how patient to be, `Scaling` is what is known
so far, an event is folded into it, and the plan says how many ranks there should be now, why, and
when to ask again. Reference: docs/elastic.md. All values are immutable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from hpcore.errors import InvalidArgument

__all__ = [
    "Event",
    "GrowthFailed",
    "Lost",
    "Places",
    "Plan",
    "Policy",
    "Preempted",
    "Replaced",
    "Resized",
    "Scaling",
    "SizeSettings",
    "Tick",
    "plan",
]


@dataclass(frozen=True, kw_only=True)
class SizeSettings:
    """What is different at one number of ranks; None: as the script says."""

    global_batch: int | None = None
    lr: float | None = None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which sizes a job may have, and how patient it is. A size is a number of ranks.

    Args:
        min: smallest size; with fewer places the job is parked, it does not run smaller.
        max: largest size.
        step: sizes are min, min + step, ... up to max; not together with `sizes`.
        sizes: the allowed sizes, all from min to max; empty: see `step`.
        settle_s: places must have been there for that long before the job grows onto them.
        standby_wait_s: how long a lost rank's place is kept for a standby before the job shrinks.
        snooze_s: after a growth that failed, the job does not try again for that long.
        grace_s: longest time that a preempted rank has to finish its step.
        priority: of two jobs that want a place, the higher one gets it.
        by_size: global batch and learning rate at some of the sizes.

    Raises InvalidArgument, with the name, the value and the limit.
    """

    min: int = 1
    max: int
    step: int | None = None
    sizes: tuple[int, ...] = ()
    settle_s: float = 30.0
    standby_wait_s: float = 10.0
    snooze_s: float = 300.0
    grace_s: float = 30.0
    priority: int = 0
    by_size: Mapping[int, SizeSettings] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise InvalidArgument(f"min {self.min} must be from 1 to max {self.max}")
        if self.step is not None and self.sizes:
            raise InvalidArgument(
                f"step {self.step} and sizes {list(self.sizes)}: give one of them, not both"
            )
        if self.step is not None and self.step < 1:
            raise InvalidArgument(f"step {self.step} must be at least 1")
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))
        outside = [size for size in self.sizes if not self.min <= size <= self.max]
        if outside:
            raise InvalidArgument(
                f"sizes {outside} are not from min {self.min} to max {self.max}: leave them out, "
                "or change min and max"
            )
        for name in ("settle_s", "standby_wait_s", "snooze_s", "grace_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidArgument(
                    f"{name} {getattr(self, name)} must be a number of seconds from 0 on"
                )
        self._check_by_size()

    def _check_by_size(self) -> None:
        object.__setattr__(self, "by_size", MappingProxyType(dict(self.by_size)))
        for size, settings in self.by_size.items():
            if self.fit(size) != size:
                raise InvalidArgument(
                    f"by_size has {size} ranks, which is no allowed size: {self.describe_sizes()}"
                )
            if settings.global_batch is not None and settings.global_batch < 1:
                raise InvalidArgument(
                    f"by_size {size}: global_batch {settings.global_batch} must be at least 1"
                )
            if settings.lr is not None and not 0 < settings.lr < float("inf"):
                raise InvalidArgument(f"by_size {size}: lr {settings.lr} must be above 0")

    @cached_property
    def allowed(self) -> tuple[int, ...]:
        """All allowed sizes, ascending."""
        return self.sizes or tuple(range(self.min, self.max + 1, self.step or 1))

    def fit(self, places: int) -> int:
        """The largest allowed size that fits these places; 0 if none does."""
        if not self.sizes:
            step = self.step or 1
            if places < self.min:
                return 0
            return self.min + (min(places, self.max) - self.min) // step * step
        at = bisect_right(self.sizes, places)
        return self.sizes[at - 1] if at else 0

    def next_above(self, size: int) -> int | None:
        """The next larger allowed size."""
        at = bisect_right(self.allowed, size)
        return self.allowed[at] if at < len(self.allowed) else None

    def describe_sizes(self) -> str:
        """The allowed sizes in words."""
        if self.sizes:
            return ", ".join(map(str, self.sizes))
        by = f" in steps of {self.step}" if self.step not in (None, 1) else ""
        return f"{self.min} to {self.max}{by}"

    @staticmethod
    def from_file(path: str) -> Policy:
        """A policy from a YAML file. Raises InvalidArgument, with the file's name."""
        import yaml

        try:
            with open(path, encoding="utf-8") as file:
                values = yaml.safe_load(file)
            if not isinstance(values, dict):
                raise InvalidArgument(
                    f"it holds a {type(values).__name__}, not names and values such as `max: 8`"
                )
            return _policy_of(values)
        except OSError as error:
            raise InvalidArgument(f"policy {path!r} cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError, InvalidArgument) as error:
            raise InvalidArgument(f"policy {path!r}: {error}") from error


def _policy_of(values: Mapping[str, Any]) -> Policy:
    known = {f.name for f in fields(Policy)}
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise InvalidArgument(
            f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    if "max" not in values:
        raise InvalidArgument("max is missing: the largest number of ranks")
    found = {name: _checked(name, value) for name, value in values.items()}
    return Policy(**found)


def _checked(name: str, value: Any) -> Any:
    if name == "by_size":
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"by_size {value!r} must map sizes to settings")
        return {_whole("by_size", size): _settings(size, own) for size, own in value.items()}
    if name == "sizes":
        if not isinstance(value, (list, tuple)):
            raise InvalidArgument(f"sizes {value!r} must be a list of numbers of ranks")
        return tuple(_whole(name, size) for size in value)
    return _number(name, value) if name.endswith("_s") else _whole(name, value)


def _settings(size: Any, values: Any) -> SizeSettings:
    known = {f.name for f in fields(SizeSettings)}
    if not isinstance(values, Mapping) or not set(values) <= known:
        raise InvalidArgument(f"by_size {size}: {values!r} must have only {sorted(known)}")
    batch, lr = values.get("global_batch"), values.get("lr")
    return SizeSettings(
        global_batch=None if batch is None else _whole("global_batch", batch),
        lr=None if lr is None else _number("lr", lr),
    )


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} {value!r} must be a whole number")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgument(f"{name} {value!r} must be a number")
    return float(value)


# --- what is known, what happens, what is to be done ----------------------------------------------


@dataclass(frozen=True)
class Scaling:
    """What is known of one job. `places`: how many ranks could run now, those that run included.

    `since`: (since_s, places), ascending in both: that there have been at least so many places
    without a break. `lost`: ranks that died and that no standby has replaced yet.
    """

    size: int = 0
    places: int = 0
    since: tuple[tuple[float, int], ...] = ()
    lost: int = 0
    lost_since_s: float = 0.0
    snooze_until_s: float = 0.0
    leave_by_s: float | None = None
    started: bool = False


@dataclass(frozen=True)
class Places:
    """There are so many places now, those in use included."""

    count: int


@dataclass(frozen=True)
class Preempted:
    """So many places are taken away. `deadline_s`: seconds until they are gone."""

    count: int
    deadline_s: float


@dataclass(frozen=True)
class Lost:
    """Ranks died; their places may be taken by standbys."""

    count: int


@dataclass(frozen=True)
class Replaced:
    """Standbys took over the ranks of some that had died."""

    count: int


@dataclass(frozen=True)
class Resized:
    """The job runs at this size now."""

    size: int


@dataclass(frozen=True)
class GrowthFailed:
    """The job could not grow, and runs as before."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = Places | Preempted | Lost | Replaced | Resized | GrowthFailed | Tick


@dataclass(frozen=True)
class Plan:
    """`target`: the size that the job should have now; 0: parked, its state in memory.

    `ask_again_s`: when a Tick may change that, if nothing else happens. `leave_by_s`: when ranks
    that are let go must have left.
    """

    scaling: Scaling
    target: int
    reason: str
    ask_again_s: float | None = None
    leave_by_s: float | None = None


def plan(policy: Policy, scaling: Scaling, event: Event, now_s: float) -> Plan:
    """The size that the job should have after `event`."""
    scaling = _fold(policy, scaling, event, now_s)
    if scaling.places < scaling.size:
        return _shrink(policy, scaling)
    if scaling.lost:
        return _replace(policy, scaling, now_s)
    return _grow(policy, scaling, now_s)


def _fold(policy: Policy, scaling: Scaling, event: Event, now_s: float) -> Scaling:
    match event:
        case Places():
            return _with_places(policy, scaling, max(0, event.count), now_s)
        case Preempted():
            leave_by = now_s + max(0.0, min(event.deadline_s, policy.grace_s))
            left = max(0, scaling.places - max(0, event.count))
            return replace(_with_places(policy, scaling, left, now_s), leave_by_s=leave_by)
        case Lost():
            since = scaling.lost_since_s if scaling.lost else now_s
            lost = min(scaling.size, scaling.lost + max(0, event.count))
            return replace(scaling, lost=lost, lost_since_s=since)
        case Replaced():
            return replace(scaling, lost=max(0, scaling.lost - max(0, event.count)))
        case Resized():
            return replace(scaling, size=event.size, lost=0, leave_by_s=None, started=True)
        case GrowthFailed():
            return replace(scaling, snooze_until_s=now_s + policy.snooze_s)
    return scaling


def _with_places(policy: Policy, scaling: Scaling, places: int, now_s: float) -> Scaling:
    kept = list(scaling.since)
    begun = now_s
    while kept and kept[-1][1] >= places:
        begun = kept.pop()[0]
    kept.append((begun, places))
    settled = sum(1 for since_s, _ in kept if since_s <= now_s - policy.settle_s)
    return replace(scaling, places=places, since=tuple(kept[max(0, settled - 1) :]))


def _shrink(policy: Policy, scaling: Scaling) -> Plan:
    target = policy.fit(scaling.places)
    reason = f"{scaling.places} places are left of {scaling.size}"
    if not target:
        reason += f": parked, below min {policy.min}"
    return Plan(scaling, target, reason, leave_by_s=scaling.leave_by_s)


def _replace(policy: Policy, scaling: Scaling, now_s: float) -> Plan:
    waited_until = scaling.lost_since_s + policy.standby_wait_s
    lost = f"{scaling.lost} of {scaling.size} ranks lost"
    if now_s < waited_until:
        return Plan(scaling, scaling.size, f"{lost}: waiting for standbys", waited_until)
    target = policy.fit(scaling.size - scaling.lost)
    reason = f"{lost}, no standby within {policy.standby_wait_s:g} s"
    if not target:
        reason += f": parked, below min {policy.min}"
    return Plan(scaling, target, reason)


def _grow(policy: Policy, scaling: Scaling, now_s: float) -> Plan:
    if not scaling.started:
        return Plan(scaling, policy.fit(scaling.places), f"start on {scaling.places} places")
    settled = [(s, n) for s, n in scaling.since if s <= now_s - policy.settle_s]
    target = policy.fit(settled[-1][1]) if settled else 0
    snoozing = now_s < scaling.snooze_until_s
    if target > scaling.size and not snoozing:
        return Plan(scaling, target, f"{target} places for {policy.settle_s:g} s")
    best = policy.fit(scaling.places)
    if best <= scaling.size:
        return Plan(scaling, scaling.size, "as large as there are places for")
    coming = [s + policy.settle_s for s, n in scaling.since if policy.fit(n) > scaling.size]
    again = max(min(coming), scaling.snooze_until_s)
    why = "a growth failed" if snoozing else "places are settling"
    return Plan(scaling, scaling.size, f"{best} ranks would fit, but {why}", again)
