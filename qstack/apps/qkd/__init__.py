"""Key distribution by BBM92: from measured pairs to a key with a proven bound (see README.md)."""
