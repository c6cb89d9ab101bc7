"""What a driver is made with: its node, the hardware as the network file has it, its options."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from msgspec import Struct

from qstack.physical.device import Device
from qstack.physical.document import DocumentError
from qstack.physical.hardware import World


class Setup(Struct, frozen=True, kw_only=True):
    """Everything a driver may know. `rng` is its own; nobody else draws from it.

    `options` are those of the network file (`[node.driver_options]`). Those whose name ends in
    `_file` are paths, and `files` has what is in them: a driver reads no files itself.
    """

    node: str
    world: World
    rng: np.random.Generator
    options: Mapping[str, object] = MappingProxyType({})
    files: Mapping[str, bytes] = MappingProxyType({})


MakeDevice = Callable[[Setup], Device]
"""What an entry point of the group `qstack.devices` is: a class, or a function."""


class DriverError(DocumentError):
    """A driver cannot be used: there is none of that name, or its options are wrong."""
