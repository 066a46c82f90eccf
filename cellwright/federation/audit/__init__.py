"""The auditor: signatures, checks on every message, and the log that cannot be altered unseen."""
