"""What Cellwright computes. Nothing here knows Prefect; see docs/guide.md for the rooms."""

__version__ = "0.1.0"
