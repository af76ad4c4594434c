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
from hpcore.nodes.enrolment import JobEnded
from hpcore.nodes.options import LEASE_S, NodesOptions

if TYPE_CHECKING:
    from hpcore.agent.agent import Agent
    from hpcore.agent.options import AgentOptions
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
@click.option("--nnodes", default="", help="Nodes: a number, or LEAST:MOST; needs --coordinator.")
@click.option("--coordinator", default="", help="etcd[s]://[user:password@]host:port[,host:port].")
@click.option("--job", default="", help="The job's name, the same on all nodes.")
@click.option("--address", default="", help="This node's address, as the other nodes reach it.")
@click.option("--rack", default="", help="Nodes of one rack are near, and fail together.")
@click.option("--lease", default=LEASE_S, help="Seconds after which a node that is cut off stops.")
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
    nnodes: str,
    coordinator: str,
    job: str,
    address: str,
    rack: str,
    lease: float,
    module: bool,
    script: str | None,
    args: tuple[str, ...],
) -> None:
    """Runs SCRIPT with ARGS on this machine: --nproc ranks, and standbys that replace lost ones.

    With --nnodes, run it on each node: ranks on all of them are one job. Nodes may come and go.
    """
    from hpcore.agent.options import AgentOptions, default_log_dir

    several = bool(nnodes or coordinator)
    nodes = NodesOptions(nnodes or "1", coordinator, job, address, rack, lease) if several else None
    try:
        options = AgentOptions(
            nproc=_count(nproc),
            command=[script, *args] if script else [],
            standbys=standbys,
            min=None if policy else min_ranks,
            max_nproc=None if policy else max_ranks,
            log_dir=log_dir or default_log_dir(),
            recovery_deadline_s=recovery_deadline,
            max_restarts=max_restarts,
            inject=inject,
            module=module,
            env={} if ledger is None else {"HPCORE_LEDGER": os.path.abspath(ledger)},
            policy=_policy(policy, min_ranks, max_ranks) if policy else None,
            nodes=nodes,
        )
        options.check()
    except InvalidArgument as error:
        _fail(str(error), USAGE_ERROR)
    sys.setswitchinterval(SWITCH_S)
    attempt, folder = 1, options.log_dir
    try:
        while (agent := _run_once(options)).fenced:  # the job may go on: come back as another
            attempt += 1
            print(f"hpcore run: {agent.stop_reason}; joining again", file=sys.stderr)
            options = replace(options, log_dir=f"{folder}-again{attempt}")
    except JobEnded as error:
        if attempt == 1:
            _fail(str(error), USAGE_ERROR)
        if error.code:
            _fail(f"the job has ended meanwhile: {error.reason}", error.code)


def _run_once(options: AgentOptions) -> Agent:
    """One life of this node's agent; ends the process if the job has ended badly."""
    from hpcore.agent.agent import Agent

    agent = Agent(options)
    _stop_on_signals(agent)
    try:
        code = agent.run()
    except JobEnded:
        raise
    except (HpcoreError, OSError) as error:
        _fail(str(error), 1)
    if code and not agent.fenced:
        _fail(f"{agent.stop_reason}; logs: {os.path.relpath(agent.log_dir)}", code)
    return agent


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
