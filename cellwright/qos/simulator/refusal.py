"""How the network refuses: a status and a code of the standard."""

from __future__ import annotations


class Refusal(Exception):
    """Becomes the answer {status, code, message}."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def invalid(message: str) -> Refusal:
    """400 INVALID_ARGUMENT."""
    return Refusal(400, "INVALID_ARGUMENT", message)


def not_found(message: str = "The specified resource is not found.") -> Refusal:
    """404 NOT_FOUND; says the same of what is another client's as of what is nobody's."""
    return Refusal(404, "NOT_FOUND", message)
