"""A bundle without a network in it: the layout does not care what the model's bytes are."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import media
from cellwright.bundle.keys import key_id
from cellwright.bundle.layout import About, pack

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return KEY


@pytest.fixture
def trust(key):
    return {key_id(key.public_key()): key.public_key()}


@pytest.fixture
def contents() -> dict[str, bytes]:
    return {name: f"content of {name}".encode() for name in media.LAYERS if name != media.MODEL_INT8}


@pytest.fixture
def make(key, contents, tmp_path):
    """make(version, folder, **contents): a packed bundle."""

    def made(version: str = "1.2.0", folder: Path | None = None, signer: Ed25519PrivateKey = key, **changed: bytes):
        about = About("city--traffic--h6-3", version, "GRU", "gru", "chosen for its accuracy", 12345, None, "abc123")
        named = {name.replace("__", "."): content for name, content in changed.items()}
        target = folder or tmp_path / f"bundle-{version}"
        return target, pack(target, contents | named, about, signer)

    return made
