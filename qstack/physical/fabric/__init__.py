"""The emulated quantum world: all states and heralding stations of one network, sans-IO."""

from qstack.physical.fabric.fabric import Delivery, Fabric, Snapshot

__all__ = ["Delivery", "Fabric", "Snapshot"]
