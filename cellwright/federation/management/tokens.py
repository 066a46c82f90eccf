"""Bearer tokens (interfaces 1 and 2): of a client, a node or an operator; only their hashes are kept.

A token is `cw_<id>_<secret>`: the id finds the row, the secret (256 random bits) is compared by its SHA-256, in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from typing import Annotated, Literal

import sqlalchemy as sa
from pydantic import Field

from cellwright.errors import WrongUse
from cellwright.federation.contract import Role, Spec
from cellwright.federation.management import tables
from cellwright.federation.management.core import Core
from cellwright.federation.management.records import Name
from cellwright.federation.management.refusals import NotFound, NotKnown

Scope = Literal["client", "node", "operator"]
_BYTES = 32
_WRONG = "the token is wrong or was revoked; ask the operator for another (`cellwright federate token new`)"


class Ceiling(Spec):
    """The most that a node may claim for itself: security levels and roles are given, not taken (8.2)."""

    roles: tuple[Role, ...] = ("data_owner",)
    security: Annotated[int, Field(ge=0, le=5)] = 1


class Identity(Spec):
    """Whom a token stands for."""

    id: str
    scope: Scope
    name: Name
    ceiling: Ceiling
    revoked: bool = False


class Tokens(Core):
    """Make, check and revoke tokens."""

    def new_token(self, scope: Scope, name: str, *, ceiling: Ceiling | None = None) -> str:
        """A new token; it is told once and cannot be read again."""
        id_ = secrets.token_hex(8)
        token = f"cw_{id_}_{secrets.token_urlsafe(_BYTES)}"
        row = Identity(id=id_, scope=scope, name=name, ceiling=ceiling or Ceiling())
        with self.store.write() as connection:
            connection.execute(
                sa.insert(tables.tokens).values(
                    id=id_,
                    scope=row.scope,
                    name=row.name,
                    hash=_hash(token),
                    ceiling=row.ceiling.model_dump_json(),
                    created_s=self.now_s(),
                )
            )
        return token

    def tokens(self) -> tuple[Identity, ...]:
        """All tokens there ever were, oldest first; without their secrets."""
        with self.store.read() as connection:
            rows = connection.execute(sa.select(tables.tokens).order_by(tables.tokens.c.created_s)).mappings()
            return tuple(_identity(row) for row in rows)

    def revoke_token(self, id_or_name: str) -> tuple[Identity, ...]:
        """Revoke a token by its id, or all that a name has, at once.

        Raises:
            NotFound: there is no such token that is not revoked yet.
        """
        c = tables.tokens.c
        meant = sa.and_(sa.or_(c.id == id_or_name, c.name == id_or_name), c.revoked_s.is_(None))
        with self.store.write() as connection:
            found = [_identity(row) for row in connection.execute(sa.select(tables.tokens).where(meant)).mappings()]
            connection.execute(sa.update(tables.tokens).where(meant).values(revoked_s=self.now_s()))
        if not found:
            raise NotFound(
                f"there is no valid token with the id or name '{id_or_name}'; `cellwright federate token list` shows them"
            )
        return tuple(found)

    def authenticate(self, token: str) -> Identity:
        """Whom a token stands for.

        Raises:
            NotKnown: nobody, or it was revoked.
        """
        parts = token.split("_", 2)
        with self.store.read() as connection:
            wanted = sa.select(tables.tokens).where(tables.tokens.c.id == (parts[1] if len(parts) == 3 else ""))
            row = connection.execute(wanted).mappings().one_or_none()
        good = hmac.compare_digest(row["hash"] if row else _hash(""), _hash(token))
        if row is None or not good or row["revoked_s"] is not None:
            raise NotKnown(_WRONG)
        return _identity(row)


def scope_of(text: str) -> Scope:
    """A scope by its name.

    Raises:
        WrongUse: there is none of that name.
    """
    scopes: dict[str, Scope] = {"client": "client", "node": "node", "operator": "operator"}
    if text not in scopes:
        raise WrongUse(f"a token is for a client, a node or an operator, found '{text}'")
    return scopes[text]


def _identity(row: sa.RowMapping) -> Identity:
    ceiling = Ceiling.model_validate(json.loads(row["ceiling"]))
    return Identity(id=row["id"], scope=row["scope"], name=row["name"], ceiling=ceiling, revoked=row["revoked_s"] is not None)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
