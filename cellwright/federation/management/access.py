"""Who asks the API, and what they may ask; how a model is answered."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cellwright.federation.management.records import ModelFile
from cellwright.federation.management.refusals import NotAllowed, NotKnown
from cellwright.federation.management.service import Fmlms
from cellwright.federation.management.tokens import Ceiling, Identity, Scope

_bearer = HTTPBearer(auto_error=False, description="A token from `cellwright federate token new`.")


def service_of(request: Request) -> Fmlms:
    """The FMLMS that the app was made over."""
    service: Fmlms = request.app.state.service
    return service


Service = Annotated[Fmlms, Depends(service_of)]
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def identity(service: Service, shown: Shown) -> Identity:
    """Whom the bearer token stands for.

    Raises:
        NotKnown: there is none, or it is wrong.
    """
    if shown is None:
        raise NotKnown("a bearer token is needed (Authorization: Bearer …); ask the operator for one")
    return service.authenticate(shown.credentials)


def _scoped(*scopes: Scope) -> Callable[[Identity], Identity]:
    def checked(who: Annotated[Identity, Depends(identity)]) -> Identity:
        if who.scope not in scopes:
            raise NotAllowed(f"rule 'scope': this is for {' or '.join(scopes)}, and the token is a {who.scope}'s")
        return who

    return checked


Anyone = Annotated[Identity, Depends(identity)]
Client = Annotated[Identity, Depends(_scoped("client", "operator"))]
Node = Annotated[Identity, Depends(_scoped("node", "operator"))]
Operator = Annotated[Identity, Depends(_scoped("operator"))]


def only_theirs(who: Identity) -> str | None:
    """The client that a request must be of, for whoever asks; None: an operator, who sees all."""
    return None if who.scope == "operator" else who.name


def itself(who: Identity, node: str) -> Ceiling | None:
    """Refuse a node that speaks for another; returns what it may claim at most (None: an operator, anything)."""
    if who.scope == "operator":
        return None
    if who.name != node:
        raise NotAllowed(f"rule 'scope': the token is {who.name}'s, which cannot speak for {node}")
    return who.ceiling


def model_response(file: ModelFile, content: bytes) -> Response:
    """A model with its SHA-256 (RFC 9530), which whoever gets it compares."""
    digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    headers = {"Repr-Digest": f"sha-256=:{digest}:", "ETag": f'"{file.sha256}"', "Cache-Control": "private"}
    return Response(content, media_type=file.media_type, headers=headers)
