"""The network layer: pairs end to end, over circuits."""
