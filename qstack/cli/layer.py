"""`qstack layer`: one layer of a node as a process of its own."""

from pathlib import Path
from typing import get_args

import click

from qstack.cli.daemon import use_batch_scheduling
from qstack.runtime.layer_process import LayerRefusedError, serve_layer
from qstack.runtime.network_file import load_network
from qstack.runtime.network_tables import LayerName
from qstack.runtime.run_folder import RunFolderError, private_folder, run_folder, socket_path


@click.group()
def layer() -> None:
    """Run a layer of a node whose layout is split, where the network file calls it external."""


@layer.command()
@click.argument("network_file", type=click.Path(path_type=Path))
@click.option("--node", required=True, help="The node it is a layer of.")
@click.option("--layer", "name", type=click.Choice(get_args(LayerName)), required=True)
@click.option("--run-folder", "folder", type=click.Path(path_type=Path), help="This network's.")
def run(network_file: Path, node: str, name: LayerName, folder: Path | None) -> None:
    """Run one layer until its node ends; the node must be waiting for it.

    It talks to its node over a Unix socket in the run folder, in the messages of
    `qstack/runtime/layer_messages.py` and of the layer's services: another program may do the same.
    """
    network = load_network(network_file)
    folder = private_folder(folder or run_folder() / network.name)
    path = socket_path(folder, f"layers-{node}.sock")
    use_batch_scheduling()
    try:
        serve_layer(path, network, node, name)
    except OSError as error:
        raise RunFolderError(
            f"no node waits at {path} ({error.strerror}); start `qstack node run` for {node} first,"
            ' with layout = "split" and this layer in `external`'
        ) from error
    except LayerRefusedError as error:
        raise RunFolderError(str(error)) from error
