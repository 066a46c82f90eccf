"""A store of metadata and model data that lies encrypted on the disk (M.3387 10.2): one file a version, each sealed by a vault.

    <folder>/<name>/<version>.sealed

Name and version are bound into each file: one that is moved to another place does not open. Not hidden: names, number of versions,
sizes. Not found: that the newest version of a name was deleted.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cellwright.errors import FederationError, UnknownName
from cellwright.federation.data.keyring import KeySource
from cellwright.federation.data.vault import Vault
from cellwright.files import explained, write_bytes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_FILE = re.compile(r"(\d{8})\.sealed")


class SealedStore:
    """Versions 1, 2, … of named contents. `former`: keys that older files may still be sealed with."""

    def __init__(self, folder: Path, key: KeySource, former: Sequence[KeySource] = ()) -> None:
        self.folder = folder
        self.vault = Vault(key, former)

    def put(self, name: str, content: bytes) -> int:
        """Seal a new version; returns its number."""
        while True:
            version = max(self.versions(name), default=0) + 1
            if self._place(self._path(name, version), self.vault.seal(content, _context(name, version))):
                return version

    def get(self, name: str, version: int | None = None) -> bytes:
        """The content of a version, the newest by default.

        Raises:
            UnknownName: there is no such name.
            FederationError: no such version; sealed with another key; altered.
        """
        chosen = self._existing(name, version)
        return self.vault.unseal(self._path(name, chosen).read_bytes(), _context(name, chosen))

    def list(self) -> tuple[str, ...]:
        """Names, sorted."""
        folders = self.folder.iterdir() if self.folder.is_dir() else ()
        return tuple(sorted(f.name for f in folders if _NAME.fullmatch(f.name) and self.versions(f.name)))

    def versions(self, name: str) -> tuple[int, ...]:
        """Numbers of the versions of a name, ascending; none: empty."""
        folder = self.folder / _safe(name)
        found = (_FILE.fullmatch(file.name) for file in folder.iterdir()) if folder.is_dir() else ()
        return tuple(sorted(int(match[1]) for match in found if match))

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete a version, or all of them. What a disk may keep of an unlinked file stays encrypted.

        Raises:
            UnknownName: there is no such name.
            FederationError: there is no such version.
        """
        chosen = self._existing(name, version)
        for one in self.versions(name) if version is None else (chosen,):
            self._path(name, one).unlink(missing_ok=True)
        folder = self.folder / name
        if not any(folder.iterdir()):
            folder.rmdir()

    def rotate(self, new: KeySource) -> int:
        """Seal everything with another key; returns how many files were. Killed on the way, it is called again, the old key `former`.

        Raises:
            FederationError: a file that no key of this store opens; what was not yet sealed anew keeps its key.
        """
        self.vault.rotate(new)
        return sum(self._renew(name, version) for name in self.list() for version in self.versions(name))

    def _renew(self, name: str, version: int) -> bool:
        path, context = self._path(name, version), _context(name, version)
        sealed = path.read_bytes()
        if self.vault.current(sealed):
            return False
        write_bytes(path, self.vault.seal(self.vault.unseal(sealed, context), context))
        return True

    def _existing(self, name: str, version: int | None) -> int:
        versions = self.versions(name)
        if not versions:
            raise UnknownName("sealed content", name, self.list())
        if version is not None and version not in versions:
            raise FederationError(f"'{name}' has no version {version}; there are {', '.join(map(str, versions))}")
        return versions[-1] if version is None else version

    def _path(self, name: str, version: int) -> Path:
        return self.folder / _safe(name) / f"{version:08d}.sealed"

    def _place(self, path: Path, sealed: bytes) -> bool:
        """Whether the version was free: of two writers, one gets the next number."""
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".sealed.")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(sealed)
                    out.flush()
                    os.fsync(out.fileno())
                os.link(aside, path)
            except FileExistsError:
                return False
            finally:
                Path(aside).unlink(missing_ok=True)
        return True


def _context(name: str, version: int) -> bytes:
    """What a file is bound to."""
    return json.dumps([name, version]).encode()


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise FederationError(f"a name must be 1 to 128 letters, digits, '_', '.', ':' or '-', not {name[:140]!r}")
    return name
