"""Bearer tokens: of people, edges and devices of a tenant; only their hashes are kept.

A token is `cwh_<id>_<secret>`: the id finds the row, the secret (256 random bits) is compared by its SHA-256, in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

import sqlalchemy as sa

from cellwright.hub import tables
from cellwright.hub.contract import OPERATOR, NewToken, Quota, Scope, Token, TokenForm
from cellwright.hub.core import Core, Who, tenant_exists
from cellwright.hub.refusals import HubRefused, NotFound, NotKnown

_BYTES = 32
_LONGEST = 200
_ABOVE_TENANTS: frozenset[Scope] = frozenset({"operator", "edge", "metrics:read"})
_WRONG = "the token is wrong, has expired or was revoked; ask the operator for another (`cellwright hub token new`)"


class Tokens(Core):
    """Make, check and revoke tokens."""

    def new_token(self, who: Who, tenant: str, form: TokenForm) -> NewToken:
        """A new token; its secret is told once and cannot be read again.

        Raises:
            NotFound: there is no such tenant.
            HubRefused: a scope that is the operator's for another tenant.
        """
        if tenant != OPERATOR and (above := _ABOVE_TENANTS & set(form.scopes)):
            raise HubRefused(
                f"scope {min(above)} is for tokens of the tenant '{OPERATOR}', found one of '{tenant}': an edge holds what all tenants "
                "place on it, and counters tell what all of them do"
            )
        id_ = secrets.token_hex(8)
        token = f"cwh_{id_}_{secrets.token_urlsafe(_BYTES)}"
        now = self.clock()
        expires = None if form.lifetime_s is None else now + form.lifetime_s
        with self.store.write() as connection:
            tenant_exists(connection, tenant)
            row = {"id": id_, "tenant": tenant, "name": form.name, "created_s": now, "expires_s": expires}
            connection.execute(
                sa.insert(tables.tokens).values(**row, scopes=json.dumps(sorted(set(form.scopes))), hash=_hash(token))
            )
            self.note(connection, who, "token new", f"{tenant}/{form.name}", f"{id_}: {', '.join(form.scopes)}")
        return NewToken(**row, scopes=form.scopes, token=token)

    def tokens(self, tenant: str) -> tuple[Token, ...]:
        """All tokens of a tenant there ever were, oldest first, without their secrets."""
        t = tables.tokens
        with self.store.read() as connection:
            tenant_exists(connection, tenant)
            found = connection.execute(sa.select(t).where(t.c.tenant == tenant).order_by(t.c.created_s)).mappings()
            return tuple(_token(row) for row in found)

    def revoke_token(self, who: Who, tenant: str, id_or_name: str) -> tuple[Token, ...]:
        """Revoke a token by its id, or all of a name, from the next request on. Raises NotFound."""
        c, now = tables.tokens.c, self.clock()
        meant = sa.and_(c.tenant == tenant, sa.or_(c.id == id_or_name, c.name == id_or_name), c.revoked_s.is_(None))
        with self.store.write() as connection:
            found = [_token(row) for row in connection.execute(sa.select(tables.tokens).where(meant)).mappings()]
            if not found:
                raise NotFound(f"tenant '{tenant}' has no valid token with the id or name '{id_or_name}'")
            connection.execute(sa.update(tables.tokens).where(meant).values(revoked_s=now))
            self.note(connection, who, "token revoke", f"{tenant}/{id_or_name}", ", ".join(token.id for token in found))
        return tuple(token.model_copy(update={"revoked_s": now}) for token in found)

    def authenticate(self, token: str) -> Who:
        """Whom a token stands for; counted against its tenant's requests a minute.

        Raises:
            NotKnown: nobody, or it has expired or was revoked: which, is not told.
            TooMany: the tenant's quota of requests is used up.
        """
        parts = token.split("_", 2) if len(token) <= _LONGEST else []
        t = tables.tokens
        with self.store.read() as connection:
            wanted = (
                sa.select(t, tables.tenants.c.quota)
                .join(tables.tenants, tables.tenants.c.name == t.c.tenant)
                .where(t.c.id == (parts[1] if len(parts) == 3 else ""))
            )
            row = connection.execute(wanted).mappings().one_or_none()
        good = hmac.compare_digest(row["hash"] if row else _hash(""), _hash(token))
        now = self.clock()
        if row is None or not good or row["revoked_s"] is not None or (row["expires_s"] or now + 1) <= now:
            raise NotKnown(_WRONG)
        scopes = frozenset(json.loads(row["scopes"]))
        if "edge" in scopes and row["tenant"] != OPERATOR:
            raise NotKnown(_WRONG)  # made before edges were the operator's alone
        account = f"{row['tenant']}/{row['id']}" if "edge" in scopes else row["tenant"]  # no edge uses up what others need
        self.count(account, Quota.model_validate_json(row["quota"]).requests_per_minute)
        return Who(row["id"], row["tenant"], row["name"], scopes)


def _token(row: sa.RowMapping) -> Token:
    same = {name: row[name] for name in ("id", "tenant", "name", "created_s", "expires_s", "revoked_s")}
    return Token(**same, scopes=tuple(json.loads(row["scopes"])))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
