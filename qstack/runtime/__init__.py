"""Composing layers into a node, and the drivers that run nodes: daemons and virtual time."""
