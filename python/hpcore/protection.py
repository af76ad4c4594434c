"""How a job's state and result are protected beyond its live replicas. Immutable."""

from __future__ import annotations

from dataclasses import dataclass

from hpcore.errors import InvalidArgument

CHOICES = ("stop", "warn")


@dataclass(frozen=True, kw_only=True)
class Protection:
    """Steps between copies, comparisons and checkpoints (0: never); see `hpcore.Job`.

    `exact`: no bit of the result depends on the number of ranks.
    """

    shadow_every: int = 0
    compare_every: int = 0
    on_corruption: str = "stop"
    checkpoint_dir: str = ""
    checkpoint_every: int = 0
    exact: bool = False

    @property
    def keeps(self) -> bool:
        """Whether there are copies that outlive all ranks."""
        return bool(self.shadow_every or self.checkpoint_every)

    def __post_init__(self) -> None:
        """Raises InvalidArgument, with the name."""
        for name in ("shadow_every", "compare_every", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise InvalidArgument(f"{name} must not be negative: {getattr(self, name)}")
        if self.on_corruption not in CHOICES:
            raise InvalidArgument(
                f"on_corruption={self.on_corruption!r}: it must be one of {list(CHOICES)}"
            )
        if self.checkpoint_every and not self.checkpoint_dir:
            raise InvalidArgument("checkpoint_every needs a checkpoint_dir to write to")
