"""DSSE, the Dead Simple Signing Envelope, version 1 (github.com/secure-systems-lab/dsse), with Ed25519.

What is signed is PAE(type, payload) = "DSSEv1" SP len(type) SP type SP len(payload) SP payload, so a signature made for one type
of payload is never taken for another.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle.keys import Trust, key_id
from cellwright.errors import BundleError

_MOST_SIGNATURES = 8


@dataclass(frozen=True)
class Opened:
    """A payload that a trusted key has signed."""

    payload: bytes
    signed_by: str  # key id


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a signature covers."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope, as JSON."""
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(key.sign(pae(payload_type, payload))).decode()}
        ],
    }
    return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()


def unseal(envelope: bytes, payload_type: str, trust: Trust) -> Opened:
    """The payload, if a trusted key signed it.

    Raises:
        BundleError: no envelope, another payload type, no signature by a trusted key, or one that does not fit.
    """
    payload, signatures = _parsed(envelope, payload_type)
    known = [(trust[keyid], keyid, sig) for keyid, sig in signatures if keyid in trust]
    if not known:
        signers = ", ".join(keyid[:16] or "(unnamed)" for keyid, _ in signatures)
        raise BundleError(
            f"signed by key {signers}, which is not trusted here (trusted: {', '.join(k[:16] for k in trust) or 'none'}); "
            "give the publisher's public key with --trust, if you believe it"
        )
    for key, keyid, sig in known:
        try:
            key.verify(sig, pae(payload_type, payload))
        except InvalidSignature:
            continue
        return Opened(payload, keyid)
    raise BundleError(f"the signature of key {known[0][1][:16]} does not fit what it signs: the bundle was changed after signing")


def _parsed(envelope: bytes, payload_type: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    try:
        content = json.loads(envelope)
        found = content["payloadType"]
        payload = base64.b64decode(content["payload"], validate=True)
        signatures = [(str(s.get("keyid", "")), base64.b64decode(s["sig"], validate=True)) for s in content["signatures"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise BundleError(f"the signature is not a DSSE envelope ({type(error).__name__}: {error})") from error
    if found != payload_type:
        raise BundleError(f"the signature covers '{found}', expected '{payload_type}'")
    if not 1 <= len(signatures) <= _MOST_SIGNATURES:
        raise BundleError(f"the envelope holds {len(signatures)} signatures, expected 1 to {_MOST_SIGNATURES}")
    return payload, signatures
