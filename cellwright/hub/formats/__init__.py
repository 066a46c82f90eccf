"""Formats in which models are taken in: one file a format, found by name; nothing that is taken in is ever executed."""
