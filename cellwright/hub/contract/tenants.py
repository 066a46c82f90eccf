"""Tenants, tokens, keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from cellwright.hub.contract.names import Amount, Hex, Line, Scope, Seconds, ShortName, TenantName, Wire, _number


class Quota(Wire):
    """The most that a tenant may have."""

    bytes: Amount = 50 * 1024**3  # of its releases and open uploads
    models: Amount = 1_000
    uploads: Amount = 8  # open at once
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000), BeforeValidator(_number)] = 6_000


class Usage(Wire):
    """What a tenant has."""

    bytes: Amount
    models: Amount
    releases: Amount
    uploads: Amount


class TenantForm(Wire):
    """PUT /v1/tenants/{tenant}."""

    title: Line = ""
    quota: Quota = Quota()


class Tenant(TenantForm):
    """A tenant as the operator sees it; `GET /v1/tenant` shows a tenant itself."""

    name: TenantName
    created_s: Seconds
    usage: Usage


class TokenForm(Wire):
    """POST /v1/tenants/{tenant}/tokens. `name`: of the person, edge or device that it stands for."""

    name: ShortName
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=10)]
    lifetime_s: Annotated[float, Field(strict=True, gt=0, le=1e10)] | None = None  # None: until it is revoked


class Token(Wire):
    """A token without its secret."""

    id: str
    tenant: TenantName
    name: ShortName
    scopes: tuple[Scope, ...]
    created_s: Seconds
    expires_s: Seconds | None
    revoked_s: Seconds | None = None


class NewToken(Token):
    """A token with its secret, told once."""

    token: str


class KeyForm(Wire):
    """POST /v1/keys: a public key whose signatures on this tenant's ModelPack bundles are believed."""

    pem: Annotated[str, Field(max_length=4096)]


class PublicKey(Wire):
    """An Ed25519 public key."""

    id: Hex
    pem: str
