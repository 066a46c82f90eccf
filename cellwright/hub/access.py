"""Who asks the API, and what their token lets them do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cellwright.hub.admitting import identified
from cellwright.hub.contract import ModelName, Scope, ShortName, TenantName, VersionName
from cellwright.hub.core import Who
from cellwright.hub.refusals import NotAllowed
from cellwright.hub.service import Hub

_bearer = HTTPBearer(auto_error=False, description="A token from `cellwright hub token new`.")


def hub_of(request: Request) -> Hub:
    """The hub that the app was made over."""
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(hub_of)]
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def identity(hub: TheHub, request: Request, _shown: Shown) -> Who:
    """Whom the bearer token stands for. Raises NotKnown, TooMany."""
    return identified(hub, request)


def _scoped(*scopes: Scope) -> Callable[[Who], Who]:
    def checked(who: Annotated[Who, Depends(identity)]) -> Who:
        if not who.operator and not who.scopes & set(scopes):
            raise NotAllowed(f"this needs a token of scope {' or '.join(scopes)}, this one has {', '.join(sorted(who.scopes))}")
        return who

    return checked


def _operator(who: Annotated[Who, Depends(identity)]) -> Who:
    if not who.operator:
        raise NotAllowed("this needs a token of scope operator")
    return who


def _itself(edge: EdgeName, who: Annotated[Who, Depends(_scoped("edge"))]) -> Who:
    """An edge speaks for itself alone."""
    if not who.operator and who.name != edge:
        raise NotAllowed(f"the token is of the edge '{who.name}', which cannot speak for '{edge}'")
    return who


EdgeName = Annotated[ShortName, Path()]
Anyone = Annotated[Who, Depends(identity)]
Operator = Annotated[Who, Depends(_operator)]
Reader = Annotated[Who, Depends(_scoped("models:read", "models:write", "publish"))]
Writer = Annotated[Who, Depends(_scoped("models:write"))]
Publisher = Annotated[Who, Depends(_scoped("publish"))]
Placer = Annotated[Who, Depends(_scoped("placement:write"))]
Looker = Annotated[Who, Depends(_scoped("models:read", "models:write", "placement:write", "publish", "edge", "device"))]
Matcher = Annotated[Who, Depends(_scoped("device", "models:read"))]
Reporter = Annotated[Who, Depends(_scoped("device", "edge"))]
Auditor = Annotated[Who, Depends(_scoped("audit:read"))]
Measurer = Annotated[Who, Depends(_scoped("metrics:read"))]
Itself = Annotated[Who, Depends(_itself)]
TenantPath = Annotated[TenantName, Path()]
ModelPath = Annotated[ModelName, Path()]
VersionPath = Annotated[VersionName, Path()]
NamePath = Annotated[ShortName, Path()]
