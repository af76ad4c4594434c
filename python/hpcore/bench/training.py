"""Steps of DDP and FSDP2 on the hpcore backend beside Gloo: the training part of `hpcore bench
collectives`.

A transformer encoder of 50 M parameters in float32 on a batch of 128 tokens a rank, so that a step
is communication as much as arithmetic; SGD; both contenders in the same processes, turn by turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcore.bench.collectives import CONTENDERS, groups, seconds
from hpcore.bench.ranks import run_ranks
from hpcore.bench.result import Report, Result
from hpcore.errors import HpcoreError

WIDTH, LAYERS, TOKENS = 512, 16, 128
WRAPPERS = ("ddp", "fsdp2")


def measure(report: Report, ranks: Sequence[int], blocks: int, say: Callable[[str], None]) -> None:
    """Adds one result for each wrapper and number of ranks. Blocks for about a minute each.

    Raises HpcoreError if the two contenders' losses differ by more than rounding.
    """
    for count in ranks:
        for wrapper in WRAPPERS:
            say(f"training steps, {wrapper}, {count} ranks")
            times = _run(wrapper, count, blocks)
            case = f"{wrapper}/transformer-50M/ranks={count}"
            result = report.add(Result(case, "step_time", "s", times["hpcore"]))
            result.hold_against("gloo", times["gloo"])


def _run(wrapper: str, ranks: int, blocks: int) -> dict[str, list[float]]:
    name = f"training-{wrapper}-{ranks}"

    def body(rank: int) -> tuple[dict[str, list[float]], dict[str, float]]:
        with groups(name, rank, ranks) as found:
            return _train(wrapper, found, rank, blocks)

    every = run_ranks(ranks, body, timeout_s=1200.0)
    losses = every[0][1]
    if abs(losses["hpcore"] - losses["gloo"]) > 1e-3 * abs(losses["gloo"]):
        raise HpcoreError(f"{wrapper}: the contenders do not train alike: losses {losses}")
    return {
        name: [max(step) for step in zip(*(times[name] for times, _ in every), strict=True)]
        for name in CONTENDERS
    }


def _train(
    wrapper: str, groups: dict[str, Any], rank: int, blocks: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    import torch
    import torch.distributed as dist

    trainers = {name: _trainer(wrapper, groups[name]) for name in CONTENDERS}
    batch = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(rank))
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    losses = dict.fromkeys(CONTENDERS, 0.0)
    for block in range(blocks + 1):
        for name in CONTENDERS:
            dist.barrier()

            def step(name: str = name) -> None:
                losses[name] = trainers[name](batch)

            taken = seconds(step, 2)
            if block:  # the first warms up
                times[name] += taken
    return times, losses


def _trainer(wrapper: str, group: Any) -> Callable[[Any], float]:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [
        nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, 0.0, batch_first=True)
        for _ in range(LAYERS)
    ]
    model: nn.Module = nn.Sequential(*layers)
    if wrapper == "ddp":
        model = nn.parallel.DistributedDataParallel(model, process_group=group)
    else:
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.fsdp import fully_shard

        mesh = DeviceMesh.from_group(group, "cpu")
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train(batch: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return train
