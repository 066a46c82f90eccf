"""Tenants, tokens and keys over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from cellwright.hub import contract as c
from cellwright.hub.access import Anyone, Operator, TenantPath, TheHub, Writer

router = APIRouter(prefix="/v1")


@router.get("/tenant", tags=["tenants"], summary="The tenant of the token, its quota and what it uses")
def itself(hub: TheHub, who: Anyone) -> c.Tenant:
    return hub.tenant(who.tenant)


@router.get("/tenants", tags=["tenants"], summary="All tenants (operator)")
def tenants(hub: TheHub, _who: Operator) -> tuple[c.Tenant, ...]:
    return hub.tenants()


@router.get("/tenants/{tenant}", tags=["tenants"], summary="One tenant (operator)")
def tenant(hub: TheHub, _who: Operator, tenant: TenantPath) -> c.Tenant:
    return hub.tenant(tenant)


@router.put("/tenants/{tenant}", tags=["tenants"], summary="Make or change a tenant (operator)")
def put_tenant(hub: TheHub, who: Operator, tenant: TenantPath, form: c.TenantForm) -> c.Tenant:
    return hub.put_tenant(who, tenant, form)


@router.delete("/tenants/{tenant}", status_code=204, tags=["tenants"], summary="Delete a tenant without models (operator)")
def delete_tenant(hub: TheHub, who: Operator, tenant: TenantPath) -> None:
    hub.delete_tenant(who, tenant)


@router.get("/tenants/{tenant}/tokens", tags=["tokens"], summary="A tenant's tokens, without their secrets (operator)")
def tokens(hub: TheHub, _who: Operator, tenant: TenantPath) -> tuple[c.Token, ...]:
    return hub.tokens(tenant)


@router.post("/tenants/{tenant}/tokens", status_code=201, tags=["tokens"], summary="A new token, told once (operator)")
def new_token(hub: TheHub, who: Operator, tenant: TenantPath, form: c.TokenForm) -> c.NewToken:
    return hub.new_token(who, tenant, form)


@router.delete("/tenants/{tenant}/tokens/{token}", tags=["tokens"], summary="Revoke a token by id, or all of a name (operator)")
def revoke_token(hub: TheHub, who: Operator, tenant: TenantPath, token: str) -> tuple[c.Token, ...]:
    return hub.revoke_token(who, tenant, token)


@router.get("/keys", tags=["keys"], summary="Keys whose signatures on this tenant's bundles are believed")
def keys(hub: TheHub, who: Anyone) -> tuple[c.PublicKey, ...]:
    return hub.keys(who.tenant)


@router.post("/keys", status_code=201, tags=["keys"], summary="Believe a public key on this tenant's bundles")
def add_key(hub: TheHub, who: Writer, form: c.KeyForm) -> c.PublicKey:
    return hub.add_key(who, form.pem)


@router.delete("/keys/{key}", status_code=204, tags=["keys"], summary="Believe a key no more")
def remove_key(hub: TheHub, who: Writer, key: str) -> None:
    hub.remove_key(who, key)
