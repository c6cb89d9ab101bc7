"""Authenticated channels between processes: identities, the authority, TLS 1.3, HELLO, frames."""
