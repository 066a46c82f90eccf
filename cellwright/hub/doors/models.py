"""Doors of models and releases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.errors import EdgeError, HubError
from cellwright.hub import contract as c
from cellwright.hub.doors.base import Asking, owned, query

if TYPE_CHECKING:
    from cellwright.edge.download import Download


class Models(Asking):
    """Models and releases."""

    def models(self, *, shared: bool = False) -> tuple[c.Model, ...]:
        """This tenant's models; with `shared`, those that other tenants share."""
        return self._get("/v1/models", tuple[c.Model, ...], {"shared": str(shared).lower()})

    def model(self, model: str, *, owner: str | None = None) -> c.Model:
        """One model."""
        return self._get(f"/v1/models/{model}", c.Model, owned(owner))

    def put_model(self, model: str, form: c.ModelForm) -> c.Model:
        """Make a model, or change what is said of it."""
        return self._put(f"/v1/models/{model}", form, c.Model)

    def delete_model(self, model: str) -> None:
        """Delete a model that is not published, with all its releases and rules."""
        self._send("DELETE", f"/v1/models/{model}")

    def release(self, model: str, version: str, *, owner: str | None = None) -> c.Release:
        """One release."""
        return self._get(f"/v1/models/{model}/versions/{version}", c.Release, owned(owner))

    def delete_release(self, model: str, version: str) -> None:
        """Delete a version that is not in use."""
        self._send("DELETE", f"/v1/models/{model}/versions/{version}")

    def file(self, model: str, version: str, path: str, *, owner: str | None = None, most_bytes: int = 1 << 30) -> bytes:
        """A file of a release, whole, its hash checked against the release's."""
        named = next((f for f in self.release(model, version, owner=owner).files if f.path == path), None)
        if named is None or named.bytes > most_bytes:
            raise HubError(f"{model} {version} has no file '{path}' of at most {most_bytes} bytes")
        content = self._send("GET", f"/v1/models/{model}/versions/{version}/files/{path}", params=owned(owner)).content
        if hashlib.sha256(content).hexdigest() != named.sha256:
            raise HubError(f"{path} of {model} {version} arrived damaged; ask again")
        return content

    def download(self, model: str, version: str, folder: Path, *, owner: str | None = None) -> c.Release:
        """Bring a release's layout to `folder`; resumes what broke off. `cellwright.bundle.layout.verify` checks the signature.

        Raises:
            HubError: the connection broke, or the bytes are others than the release names.
        """
        from cellwright.bundle.manifest import Descriptor

        release = self.release(model, version, owner=owner)
        with self._download() as fetching:
            for file in release.files:
                if (folder / file.path).is_file() or not c.safe_path(file.path):
                    continue
                described = Descriptor(mediaType=file.media_type, digest=f"sha256:{file.sha256}", size=file.bytes)
                where = f"/v1/models/{model}/versions/{version}/files/{file.path}{query(owner)}"
                try:
                    fetching.blob(where, folder / f".{file.sha256}.part", described, file.path, folder / file.path)
                except EdgeError as error:
                    raise HubError(str(error)) from error
        return release

    @contextmanager
    def _download(self) -> Iterator[Download]:
        """Over a plain socket, which costs a quarter of what httpx does for each byte."""
        from cellwright.edge.download import Download
        from cellwright.edge.wire import Link

        link = Link(self.url, headers={"Authorization": self.http.headers.get("Authorization", "")}, tls=self.tls)
        try:
            yield Download(link)
        finally:
            link.close()
