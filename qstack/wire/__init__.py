"""Frames, the strict codec, the registry and HELLO: what travels between processes."""
