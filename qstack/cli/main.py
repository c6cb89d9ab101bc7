"""`qstack`: finds the command, runs it, and says known errors in a line one can act on."""

import importlib
import sys
from typing import Final

import click

COMMANDS: Final = {
    "ca": "qstack.cli.ca:ca",
    "demo": "qstack.cli.demo_command:demo",
    "device": "qstack.cli.device:device",
    "fabric": "qstack.cli.fabric:fabric",
    "hardware": "qstack.cli.hardware:hardware",
    "layer": "qstack.cli.layer:layer",
    "node": "qstack.cli.node:node",
    "ping": "qstack.cli.ping:ping",
    "qkd": "qstack.cli.qkd:qkd",
    "station": "qstack.cli.station:station",
    "status": "qstack.cli.status:status",
    "up": "qstack.cli.up:up",
}
STARTERS: Final = ("demo", "up")
"""They start processes: a fork server is made first."""
KNOWN_ERRORS: Final = (
    "qstack.channel.ca:CredentialsError",
    "qstack.cli.demo.expectation_chain:NoExpectationError",
    "qstack.physical.document:DocumentError",
    "qstack.runtime.control_client:ControlError",
    "qstack.runtime.listen:AddressError",
    "qstack.runtime.run_folder:RunFolderError",
    "qstack.api.errors:QstackError",
)


class Commands(click.Group):
    """Commands by name, each imported only when it is used: `qstack node` needs no tables."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = _load(COMMANDS[cmd_name])
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qstack")
def cli() -> None:
    """A quantum-network protocol stack that runs.

    Start with `qstack demo`, or `qstack up NETWORK.toml` in one terminal and `qstack ping` in
    another.
    """


def main() -> None:
    """The entry point. Exit status: 0 done, 1 an error that is said, 2 wrong usage, 130 Ctrl-C."""
    if not __debug__:
        sys.exit("qstack: its assertions must be on; run Python without -O")
    try:
        if sys.argv[1:2] and sys.argv[1] in STARTERS:
            importlib.import_module("qstack.cli.fork_server").make()
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        text = _known_text(error)
        if text is None:
            raise
        click.echo(f"qstack: {text}", err=True)
        sys.exit(1)


def _known_text(error: BaseException) -> str | None:
    """What to say of an error that a user can act on; None for our own bugs."""
    if isinstance(error, BaseExceptionGroup):
        texts = [_known_text(inner) for inner in error.exceptions]
        return "; ".join(text for text in texts if text) if all(texts) else None
    for place in KNOWN_ERRORS:
        module = sys.modules.get(place.partition(":")[0])
        if module is not None and isinstance(error, getattr(module, place.partition(":")[2])):
            return str(error)
    return None


def _load(place: str) -> object:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
