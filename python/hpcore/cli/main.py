"""`hpcore`: the command group. Each command's module is imported when the command is used, so
that `hpcore run` starts fast and a module that cannot be imported breaks its own command
only."""

from __future__ import annotations

import importlib
import sys

import click

import hpcore

COMMANDS = {
    "run": "hpcore.cli.run:run",
    "demo": "hpcore.cli.demo:demo",
    "bench": "hpcore.cli.bench:bench",
    "data": "hpcore.cli.data:data",
    "ledger": "hpcore.cli.ledger:ledger",
}
"""Command -> "module:name of the click command"."""


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, imported or not."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command; one that cannot be imported says why when it is used."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        try:
            command = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            return _unavailable(cmd_name, f"hpcore {cmd_name} is not available: {error}")
        assert isinstance(command, click.Command)
        return command


def _unavailable(name: str, reason: str) -> click.Command:
    @click.command(
        name, help=reason, context_settings={"ignore_unknown_options": True}, add_help_option=False
    )
    @click.argument("args", nargs=-1)
    def command(args: tuple[str, ...]) -> None:
        raise click.ClickException(reason)

    return command


def _print_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"hpcore {hpcore.__version__}")
        ctx.exit()


@click.group(cls=LazyGroup)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Say the version, from git, and end.",
)
def main() -> None:
    """Training that does not stop: elastic distributed PyTorch that heals from memory."""


if __name__ == "__main__":
    sys.exit(main(prog_name="hpcore"))
