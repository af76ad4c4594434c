"""`hpcore run`: a job on this machine, in place of `torchrun`."""

from __future__ import annotations

import os
import signal
import sys
import types
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hpcore.errors import HpcoreError, InvalidArgument

if TYPE_CHECKING:
    from hpcore.agent.agent import Agent
    from hpcore.elastic import Policy

USAGE_ERROR = 2
SWITCH_S = 0.0005
"""The thread that relays output must not keep the interpreter from one that has seen a death."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--nproc", "--nproc-per-node", default="1", help="Ranks; 'auto': one a core.")
@click.option("--standbys", default=0, help="Warm standbys that take a lost rank's place.")
@click.option(
    "--min", "min_ranks", type=int, help="Smallest world after a loss (default: --nproc)."
)
@click.option("--max", "max_ranks", type=int, help="Largest world (default: --nproc).")
@click.option("--policy", metavar="FILE", help="Sizes and patience, YAML: docs/elastic.md.")
@click.option("--log-dir", help="Logs and events.jsonl (default: runs/<time>-<pid>).")
@click.option("--recovery-deadline", default=60.0, help="Seconds a lost rank may be missing.")
@click.option("--max-restarts", type=int, help="Losses after which the job stops (default: none).")
@click.option("--inject", multiple=True, metavar="RULE", help="A fault for a drill; repeatable.")
@click.option("--ledger", metavar="FILE", help="Note each step's samples: hpcore ledger verify.")
@click.option("-m", "--module", is_flag=True, help="The script is a module's name.")
@click.argument("script", required=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(
    nproc: str,
    standbys: int,
    min_ranks: int | None,
    max_ranks: int | None,
    policy: str | None,
    log_dir: str | None,
    recovery_deadline: float,
    max_restarts: int | None,
    inject: tuple[str, ...],
    ledger: str | None,
    module: bool,
    script: str | None,
    args: tuple[str, ...],
) -> None:
    """Runs SCRIPT with ARGS on this machine: --nproc ranks, and standbys that replace lost ones."""
    from hpcore.agent.agent import Agent
    from hpcore.agent.options import AgentOptions

    try:
        agent = Agent(
            AgentOptions(
                nproc=_count(nproc),
                command=[script, *args] if script else [],
                standbys=standbys,
                min=None if policy else min_ranks,
                max_nproc=None if policy else max_ranks,
                policy=_policy(policy, min_ranks, max_ranks) if policy else None,
                log_dir=log_dir,
                recovery_deadline_s=recovery_deadline,
                max_restarts=max_restarts,
                inject=inject,
                module=module,
                env={} if ledger is None else {"HPCORE_LEDGER": os.path.abspath(ledger)},
            )
        )
    except InvalidArgument as error:
        _fail(str(error), USAGE_ERROR)
    _stop_on_signals(agent)
    sys.setswitchinterval(SWITCH_S)
    try:
        code = agent.run()
    except (HpcoreError, OSError) as error:
        _fail(str(error), 1)
    if code:
        _fail(f"{agent.stop_reason}; logs: {os.path.relpath(agent.log_dir)}", code)


def _policy(path: str, min_ranks: int | None, max_ranks: int | None) -> Policy:
    """The file's, with what the command line says otherwise."""
    from hpcore.elastic import Policy

    policy = Policy.from_file(path)
    if min_ranks is not None:
        policy = replace(policy, min=min_ranks)
    return policy if max_ranks is None else replace(policy, max=max_ranks)


def _count(nproc: str) -> int:
    if nproc in ("auto", "cpu"):
        return len(os.sched_getaffinity(0))
    try:
        return int(nproc)
    except ValueError:
        raise InvalidArgument(f"--nproc {nproc}: a number of ranks, or auto") from None


def _fail(message: str, code: int) -> None:
    print(f"hpcore run: {message}", file=sys.stderr)
    sys.exit(code)


def _stop_on_signals(agent: Agent) -> None:
    def stop(number: int, _frame: types.FrameType | None) -> None:
        agent.stop(128 + number, f"ended by {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, stop)
