"""Errors of the FMLMS's API: which status each kind has, and what of it is told. cellwright/web says how."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from cellwright.errors import CellwrightError, FederationError, Refused
from cellwright.federation.management.refusals import Conflict, NotAllowed, NotFound, NotKnown, TooLarge
from cellwright.web import problems

log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[FederationError], int], ...] = (
    (NotKnown, 401),
    (NotAllowed, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Refused, 422),
    (FederationError, 503),
)


def add_to(app: FastAPI) -> None:
    """Answer every error of an app with a problem; what is not foreseen says nothing of the inside."""
    problems.add_to(app, FederationError, _answer, "the management system")


def _answer(request: Request, error: CellwrightError) -> JSONResponse:
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.error("%s %s: %s", request.method, request.url.path, error)
        return problems.problem(status, "the management system cannot answer now; its log says why")
    return problems.problem(status, str(error), {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None)
