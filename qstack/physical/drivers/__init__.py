"""Drivers of quantum hardware in the node's process, and what they are made with."""
