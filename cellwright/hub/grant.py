"""Grants: leave for a device to fetch a tenant's models from an edge, signed by the hub, verified offline.

    grant = base64url(canonical JSON claims) "." base64url(Ed25519 signature over PAE(type, claims))

No padding. The signature is over DSSE's pre-authentication encoding with a type of its own, so that nothing else the hub's key
ever signed can be taken for a grant. A bearer has what the grant says until it expires; so they are short-lived. A claim that is not
known may be a condition, so a grant with one is refused: newer claims get a newer type.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError, model_validator

from cellwright.bundle.dsse import pae
from cellwright.bundle.manifest import canonical
from cellwright.errors import GrantRefused
from cellwright.hub.contract import GrantId, ModelName, Seconds, ShortName, TenantName, Wire

KIND = "application/vnd.cellwright.grant.v1+json"
LEEWAY_S = 60.0  # by which clocks may differ
LONGEST = 8_192  # characters
LONGEST_LIFE_S = 86_400.0
_SIGNATURE_BYTES = 64


class Grant(Wire):
    """Claims: `subject` (a device) may fetch `models` of `tenant`; ("*",) means all of them."""

    id: GrantId
    tenant: TenantName
    subject: ShortName
    models: Annotated[tuple[ModelName | Literal["*"], ...], Field(min_length=1, max_length=64)]
    not_before_s: Seconds
    expires_s: Seconds
    truth: bool = False  # the subject may also tell edges what was measured, which rollouts are judged by

    @model_validator(mode="after")
    def _lives(self) -> Grant:
        if not 0 < self.expires_s - self.not_before_s <= LONGEST_LIFE_S:
            raise ValueError(f"a grant lives at most {LONGEST_LIFE_S:g} s, and longer than none")
        return self

    def allows(self, tenant: str, model: str) -> bool:
        """Whether a model may be fetched."""
        return tenant == self.tenant and ("*" in self.models or model in self.models)


@dataclass(frozen=True)
class TakenBack:
    """Grants of a tenant that are believed no more, by the hub's word. Asking takes the same time however many they are."""

    from_s: float = 0.0  # all that became valid before
    devices_s: Mapping[str, float] = field(default_factory=dict)  # device -> those of its that became valid before
    grants: frozenset[str] = frozenset()  # ids

    def includes(self, grant: Grant) -> bool:
        """Whether a grant of this tenant is among them."""
        from_s = max(self.from_s, self.devices_s.get(grant.subject, 0.0))
        return grant.not_before_s < from_s or grant.id in self.grants


def issue(
    key: Ed25519PrivateKey,
    *,
    tenant: str,
    subject: str,
    models: tuple[str, ...],
    now_s: float,
    lifetime_s: float,
    truth: bool = False,
) -> tuple[str, Grant]:
    """A new grant as text, and its claims. Raises ValidationError where a name cannot be one, or it would live too long."""
    grant = Grant(
        id=secrets.token_hex(8),
        tenant=tenant,
        subject=subject,
        models=models,
        not_before_s=now_s,
        expires_s=now_s + lifetime_s,
        truth=truth,
    )
    claims = canonical(grant.model_dump(mode="json", exclude_defaults=True))
    return f"{_encoded(claims)}.{_encoded(key.sign(pae(KIND, claims)))}", grant


def check(text: str, key: Ed25519PublicKey, now_s: float, *, leeway_s: float = LEEWAY_S) -> Grant:
    """The claims of a grant that the hub's key signed and that is valid now.

    Raises:
        GrantRefused: malformed, too long, signed by another, not valid yet, or expired.
    """
    if len(text) > LONGEST:
        raise GrantRefused(f"a grant has at most {LONGEST} characters, found {len(text)}")
    claims, signature = _parts(text)
    try:
        key.verify(signature, pae(KIND, claims))
    except InvalidSignature:
        raise GrantRefused(
            "the grant is not signed by this hub; ask the hub for another (POST /v1/match or /v1/grants)"
        ) from None
    grant = _claims(claims)
    if now_s < grant.not_before_s - leeway_s:
        raise GrantRefused(
            f"the grant becomes valid in {grant.not_before_s - now_s:.0f} s; set this machine's clock, or the hub's"
        )
    if now_s >= grant.expires_s + leeway_s:
        raise GrantRefused(f"the grant expired {now_s - grant.expires_s:.0f} s ago; ask the hub for another")
    return grant


def read(text: str) -> Grant:
    """The claims of a grant for whoever holds it and had it from the hub itself; nothing is verified. Raises GrantRefused."""
    return _claims(_parts(text)[0])


def _claims(content: bytes) -> Grant:
    try:
        return Grant.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise GrantRefused(f"the grant's claims are not of this version: {first['loc']}: {first['msg']}") from None


def _parts(text: str) -> tuple[bytes, bytes]:
    head, dot, tail = text.partition(".")
    claims, signature = _decoded(head), _decoded(tail)
    if not dot or claims is None or signature is None or len(signature) != _SIGNATURE_BYTES:
        raise GrantRefused("that is no grant: expected base64url(claims).base64url(signature) as the hub gives it")
    return claims, signature


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes | None:
    """None unless `text` is the one way to write these bytes."""
    try:
        content = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if _encoded(content) == text else None
