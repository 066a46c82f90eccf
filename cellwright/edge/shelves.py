"""Shelves of tenants: one a tenant, with keys of its own.

<store>/tenants/hub.pub                              the hub's key, which signs grants
<store>/tenants/<tenant>/.keys/trusted/*.pub         whose signatures are believed on this tenant's shelf
<store>/tenants/<tenant>/<model>/<version>/          verified OCI layouts, as in the workspace's own published folder
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cellwright.bundle import store
from cellwright.bundle.keys import Trust, read_public, trusted
from cellwright.edge.predictor import Precision
from cellwright.edge.shelf import Shelf
from cellwright.errors import BundleError
from cellwright.files import write_bytes

log = logging.getLogger(__name__)
_FOLDER, _HUB, _KEYS = "tenants", "hub.pub", ".keys"
_TENANT = re.compile(r"[a-z0-9-]{1,40}")


class Shelves:
    """All tenants' shelves of one store. Safe to use from several threads."""

    def __init__(self, folder: Path, *, precision: Precision = "fp32") -> None:
        """`folder`: of the store that holds them."""
        self.folder, self._precision = folder / _FOLDER, precision
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()
        self.hub_key: Ed25519PublicKey | None = None
        self.refused: dict[str, str] = {}  # tenant -> why nothing of it is served

    def __iter__(self) -> Iterator[tuple[str, Shelf]]:
        return iter(tuple(self._shelves.items()))

    def get(self, tenant: str) -> Shelf | None:
        """A tenant's shelf; None: nothing of it is here."""
        return self._shelves.get(tenant)

    def place_of(self, tenant: str) -> Path:
        """Folder of a tenant's bundles."""
        return self.folder / tenant

    def trust_of(self, tenant: str) -> Trust:
        """The keys that are believed on a tenant's shelf. Raises BundleError."""
        return trusted(self.place_of(tenant) / _KEYS)

    def refresh(self) -> None:
        """Look for changes and take them over."""
        with self._lock:
            self.hub_key = self._read_hub_key()
            there = {p.name for p in self.folder.glob("*") if _TENANT.fullmatch(p.name) and (p / _KEYS).is_dir()}
            shelves, refused = {}, {}
            for tenant in sorted(there):
                try:
                    shelves[tenant] = self._refreshed(tenant)
                except BundleError as error:
                    refused[tenant] = str(error)
                    log.warning("nothing of tenant %s is served: %s", tenant, error)
            self._shelves, self.refused = shelves, refused

    def _read_hub_key(self) -> Ed25519PublicKey | None:
        """None: no hub was ever heard of, or what is there is no key, and no grant can be checked."""
        try:
            return read_public(self.folder / _HUB) if (self.folder / _HUB).is_file() else None
        except BundleError as error:
            log.warning("no grant can be checked: %s", error)
            return None

    def _refreshed(self, tenant: str) -> Shelf:
        trust = self.trust_of(tenant)
        shelf = self._shelves.get(tenant) or Shelf(self.place_of(tenant), trust, precision=self._precision)
        shelf.believe(trust)
        shelf.refresh()
        return shelf

    # for the agent

    def believe_hub(self, pem: str) -> None:
        """Verify grants with this key from the next `refresh` on."""
        write_bytes(self.folder / _HUB, pem.encode())

    def doubt_hub(self) -> None:
        """Believe no grant, until `believe_hub`."""
        (self.folder / _HUB).unlink(missing_ok=True)
        self.hub_key = None

    def believe(self, tenant: str, pems: Iterable[str]) -> None:
        """Make these the only keys of a tenant's shelf; the shelf is made as needed."""
        folder = self.place_of(tenant) / _KEYS / "trusted"
        wanted = {f"{hashlib.sha256(pem.encode()).hexdigest()[:32]}.pub": pem.encode() for pem in pems}
        for name, content in wanted.items():
            if not (folder / name).is_file():
                write_bytes(folder / name, content)
        for path in folder.glob("*.pub"):
            if path.name not in wanted:
                path.unlink()

    def drop(self, tenant: str) -> None:
        """Remove a tenant's shelf, once it holds no version any more."""
        if not store.names(self.place_of(tenant)):
            shutil.rmtree(self.place_of(tenant), ignore_errors=True)
