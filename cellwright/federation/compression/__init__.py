"""Compression of updates, one codec a file."""
