"""`qstack ca`: the network's certificate authority."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from qstack.channel import ca as authority
from qstack.channel.identity import ROLES, Identity
from qstack.channel.preshared import create_preshared


@click.group()
def ca() -> None:
    """Make the authority of a network, request certificates on hosts, and issue them."""


@ca.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--network", required=True, help="The name in [network] of the network file.")
def init(folder: Path, network: str) -> None:
    """Make a new authority (ML-DSA-65 root) in FOLDER; keep its key off the nodes."""
    with _names_said():
        root = authority.create_authority(folder, network)
    click.echo(f"root certificate: {root}  (give a copy to every host)")


@ca.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--network", required=True, help="The network's name.")
@click.option("--node", required=True, help="The node's name ('fabric' for the fabric).")
@click.option("--role", type=click.Choice(ROLES), default="node", show_default=True)
def request(folder: Path, network: str, node: str, role: str) -> None:
    """Make a key in FOLDER, on the host that will use it, and print the request for the operator.

    The key never leaves the host.
    """
    with _names_said():
        identity = Identity(network, node, role)
    click.echo(authority.request(folder, identity).decode(), nl=False)


@ca.command()
@click.argument("ca_folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("csr", type=click.File("rb"))
@click.option("--network", required=True, help="The network's name.")
@click.option("--node", required=True, help="The node the certificate is for: you state it.")
@click.option("--role", type=click.Choice(ROLES), default="node", show_default=True)
@click.option("--days", default=90, show_default=True, help="How many days it is valid.")
def issue(ca_folder: Path, csr: BinaryIO, network: str, node: str, role: str, days: int) -> None:
    """Sign the request CSR (a file, or - for standard input) and print the certificate.

    The name in the certificate is the one stated here, whatever the request says.
    """
    with _names_said():
        identity = Identity(network, node, role)
    click.echo(authority.issue(ca_folder, csr.read(), identity, valid_days=days).decode(), nl=False)


@ca.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--network", required=True, help="The network's name.")
@click.option("--between", nargs=2, required=True, metavar="A B", help="The two nodes.")
def secret(folder: Path, network: str, between: tuple[str, str]) -> None:
    """Make in FOLDER the pre-shared secret of two nodes, a file for each, for `qstack qkd run`.

    Carry each file to its node as you would a private key, put it beside the node's certificate,
    and keep no copy. It is used up with time: after some 1000 keys make a new one.
    """
    for here, path in zip(between, create_preshared(folder, network, *between), strict=True):
        click.echo(f"for {here}: {path}")


@contextmanager
def _names_said() -> Iterator[None]:
    """A name that cannot be in a certificate is the operator's to correct."""
    try:
        yield
    except ValueError as error:
        raise authority.CredentialsError(str(error)) from None
