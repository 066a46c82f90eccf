"""Ed25519 keys: one private key that signs, and the public keys whose signatures are believed.

<keys>/signing.key      PKCS #8 PEM, mode 0600, made on first use; whoever has it can sign in this project's name
<keys>/signing.pub      its public half, to be given to devices (`cellwright fetch --trust signing.pub`)
<keys>/trusted/*.pub    further public keys that are believed
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cellwright.errors import BundleError
from cellwright.files import write_bytes

Trust = Mapping[str, Ed25519PublicKey]  # key id -> key
_LARGEST_KEY_BYTES = 4096


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo (DER), hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """The private key of `folder`, made on first use.

    Raises:
        BundleError: it is not an Ed25519 key, or others may read it.
    """
    path = folder / "signing.key"
    if not path.exists():
        _create(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise BundleError(f"{path} can be read by others than its owner; run `chmod 600 {path}`, and replace it if they may have")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path} is not a private key in PEM ({error}); move it away and a new one is made") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{path} must hold an Ed25519 key, found {type(key).__name__}; move it away and a new one is made")
    write_bytes(folder / "signing.pub", public_pem(key.public_key()))
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public(path: Path) -> Ed25519PublicKey:
    """A public key in PEM.

    Raises:
        BundleError: missing, or no Ed25519 public key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_KEY_BYTES)
    except OSError as error:
        raise BundleError(f"cannot read the public key {path}: {error.strerror}") from error
    return parse_public(content, str(path))


def parse_public(content: bytes, what: str) -> Ed25519PublicKey:
    """A public key in PEM; `what` it is, for the error. Raises BundleError: it is no Ed25519 public key."""
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{what} is not a public key in PEM ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{what} must hold an Ed25519 public key, found {type(key).__name__}")
    return key


def trusted(folder: Path, *more: Path) -> Trust:
    """The keys that are believed: `folder`'s own public key, those in its trusted/, and `more` files.

    Raises:
        BundleError: a file that is no Ed25519 public key.
    """
    paths = [*folder.glob("signing.pub"), *sorted((folder / "trusted").glob("*.pub")), *more]
    return {key_id(key): key for key in map(read_public, paths)}


def trust(folder: Path, public: Path) -> str:
    """Believe a public key from now on; returns its id."""
    key = read_public(public)
    write_bytes(folder / "trusted" / f"{key_id(key)[:16]}.pub", public_pem(key))
    return key_id(key)


def _create(path: Path) -> None:
    """Make a key; where another process made one meanwhile, that one stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".signing.")  # mode 0600 by itself
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(pem)
            out.flush()
            os.fsync(out.fileno())
        if not path.exists():
            _link(Path(aside), path)
    finally:
        Path(aside).unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return  # the other process was quicker: its key is the key
