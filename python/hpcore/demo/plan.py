"""What the demo does, and when: sizes, faults, resizes. Plain values, and how a rule is worded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedFault:
    """One fault to come, in the words of `hpcore run --inject`. `title` is what the report calls
    it.
    """

    rank: int
    step: int
    point: str
    action: str
    title: str

    @property
    def rule(self) -> str:
        """The rule as `--inject` takes it."""
        return f"rank={self.rank} step={self.step} point={self.point} action={self.action}"


@dataclass(frozen=True)
class Plan:
    """One demo. A step always has `global_batch` samples of `context` tokens, whatever the number
    of ranks.
    """

    name: str
    steps: int
    faults: tuple[PlannedFault, ...]
    resizes: tuple[tuple[int, int], ...]
    nproc: int = 4
    standbys: int = 1
    global_batch: int = 64
    micro_batch: int = 4
    width: int = 128
    layers: int = 4
    context: int = 128
    text_bytes: int = 24 << 20
    seed: int = 7

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one step trains on."""
        return self.global_batch * self.context

    def arguments(self, data: str) -> list[str]:
        """Arguments of examples/train_text.py."""
        values = {
            **{"steps": self.steps, "global-batch": self.global_batch, "layers": self.layers},
            **{"micro-batch": self.micro_batch, "width": self.width, "context": self.context},
            "seed": self.seed,
        }
        return [data, "--ledger", *(f"--{name}={value}" for name, value in values.items())]


def full_plan() -> Plan:
    """About two minutes on two cores: 120 steps of 0.3 s, twice."""
    return Plan(
        "full",
        steps=120,
        faults=(
            PlannedFault(1, 15, "backward", "sigkill", "SIGKILL in mid-backward"),
            PlannedFault(3, 30, "forward", "exception", "exception in a forward"),
            PlannedFault(2, 42, "forward", "sigstop", "SIGSTOP: a rank hangs"),
            PlannedFault(0, 60, "backward", "sigkill", "SIGKILL of rank 0"),
            PlannedFault(2, 60, "heal", "sigkill", "second SIGKILL while the first is healed"),
            PlannedFault(1, 80, "optimizer", "sigkill", "SIGKILL inside optimizer.step"),
        ),
        resizes=((95, 2), (107, 4)),
    )


def quick_plan() -> Plan:
    """About 25 s: a third of the steps, each a quarter of the work, the same faults."""
    return Plan(
        "quick",
        steps=64,
        faults=(
            PlannedFault(1, 6, "backward", "sigkill", "SIGKILL in mid-backward"),
            PlannedFault(3, 16, "forward", "exception", "exception in a forward"),
            PlannedFault(2, 20, "forward", "sigstop", "SIGSTOP: a rank hangs"),
            PlannedFault(0, 30, "backward", "sigkill", "SIGKILL of rank 0"),
            PlannedFault(2, 30, "heal", "sigkill", "second SIGKILL while the first is healed"),
            PlannedFault(1, 42, "optimizer", "sigkill", "SIGKILL inside optimizer.step"),
        ),
        resizes=((50, 2), (57, 4)),
        global_batch=32,
        width=64,
        context=96,
        layers=3,
        text_bytes=4 << 20,
    )
