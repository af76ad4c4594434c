"""`hpcore ledger`: what a sample ledger proves."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from hpcore.errors import HpcoreError
from hpcore.ledger_proof import verify as prove


@click.group()
def ledger() -> None:
    """Check which samples a job has used (hpcore run --ledger FILE)."""


@ledger.command()
@click.argument("path", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(path: str, as_json: bool) -> None:
    """Is each sample used exactly once an epoch? Exit code 1 if not."""
    try:
        proof = prove(path)
    except HpcoreError as error:
        click.echo(f"hpcore ledger: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps({"holds": proof.holds, **dataclasses.asdict(proof)}))
        sys.exit(0 if proof.holds else 1)
    click.echo(
        f"{proof.steps:,} steps, {proof.samples:,} samples, {proof.epochs_complete:,} complete "
        f"epochs, {proof.runs} runs"
    )
    click.echo(
        f"not counted: {proof.discarded} discarded attempts, {proof.taken_back} steps taken back, "
        f"{proof.torn_lines} torn lines"
    )
    for problem in proof.problems:
        click.echo(f"problem: {problem}")
    if proof.problem_count > len(proof.problems):
        click.echo(f"... and {proof.problem_count - len(proof.problems)} more")
    if proof.holds:
        click.echo("holds: every sample was used exactly once in its place")
    sys.exit(0 if proof.holds else 1)
