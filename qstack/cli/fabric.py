"""`qstack fabric`: the emulated quantum world of a network, its stations and its clock."""

from pathlib import Path

import click
import trio

from qstack.channel.identity import Identity
from qstack.cli.daemon import (
    credentials_of,
    daemon_options,
    reporter,
    run_until_told,
    send_delays,
    use_batch_scheduling,
)
from qstack.runtime.control_client import open_control
from qstack.runtime.fabric_daemon import FabricDaemon, FabricOptions
from qstack.runtime.fabric_link import FABRIC_NODE
from qstack.runtime.lockstep_fabric import DONE_LIMIT_S, RETURN_LIMIT_S
from qstack.runtime.network_file import load_network, require_ports
from qstack.runtime.run_folder import RunFolderError, private_folder, run_folder, socket_path


@click.group()
def fabric() -> None:
    """Run the emulated quantum world, or stop and start its clock."""


@fabric.command()
@daemon_options
@click.option(
    "--credentials",
    type=click.Path(path_type=Path),
    help="Folder of root.pem and the fabric's key and certificate. [default: in the run folder]",
)
@click.option("--apps", type=int, default=0, help="Hold the clock until so many have attached.")
@click.option("--run", "free", is_flag=True, help="Move also when nobody waits for anything.")
@click.option("--witness", type=int, default=0, help="Keep the true states of so many pairs.")
@click.option("--done-limit-s", type=float, default=DONE_LIMIT_S, hidden=True)
@click.option("--return-limit-s", type=float, default=RETURN_LIMIT_S, hidden=True)
def run(
    network_file: Path,
    credentials: Path | None,
    folder: Path | None,
    seed: int | None,
    apps: int,
    free: bool,
    witness: int,
    restarts: int,
    done_limit_s: float,
    return_limit_s: float,
    lifeline: bool,
    send_delay_ms: float,
) -> None:
    """Run the fabric of NETWORK_FILE until Ctrl-C."""
    network = load_network(network_file)
    if network.fabric is None:
        raise RunFolderError(f"{network_file} has no [fabric]: it is for real hardware")
    folder = private_folder(folder or run_folder() / network.name)
    identity = Identity(network.name, FABRIC_NODE, "fabric")
    options = FabricOptions(
        network=network,
        credentials=credentials_of(credentials or folder / "identities", identity),
        control_socket=socket_path(folder, "fabric.sock"),
        seed=seed,
        applications=apps,
        witnessed_pairs_max=witness,
        is_free_running=free,
        restarts=restarts,
        done_limit_s=done_limit_s,
        return_limit_s=return_limit_s,
        send_delay_s=send_delays(send_delay_ms),
    )
    require_ports(network, str(network_file))
    daemon = FabricDaemon(options, reporter("fabric"))
    use_batch_scheduling()
    run_until_told(daemon.run, lifeline=lifeline)


@fabric.command()
@click.option("--network", help="Which network, if several are up.")
@click.option("--at", "at_ns", type=int, help="Network time in ns.  [default: now]")
def hold(network: str | None, at_ns: int | None) -> None:
    """Let the clock stand at a network time; ends when it stands there."""

    async def ask() -> int:
        async with open_control(find_control(network)) as control:
            return await control.hold(at_ns)

    click.echo(f"network time stands at {trio.run(ask)} ns; go on with: qstack fabric release")


@fabric.command()
@click.option("--network", help="Which network, if several are up.")
def release(network: str | None) -> None:
    """Let the clock go on."""

    async def ask() -> None:
        async with open_control(find_control(network)) as control:
            await control.release()

    trio.run(ask)
    click.echo("network time goes on")


def find_control(network: str | None) -> Path:
    """The control socket of a network that is up. Raises `RunFolderError`."""
    folder = run_folder()
    found = sorted(folder.glob(f"{network or '*'}/fabric.sock"))
    if not found:
        raise RunFolderError(f"no network is up (looked in {folder}); start one with `qstack up`")
    if len(found) > 1:
        names = ", ".join(path.parent.name for path in found)
        raise RunFolderError(f"several networks are up ({names}); name one with --network")
    return found[0]
