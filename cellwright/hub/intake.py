"""From a whole uploaded file to a release: check, lay out and sign, keep the blobs, write the rows.

The rows are written in one transaction at the very end: before it nothing of the release can be seen, after it all of it. Blobs are
claimed before they are kept, so that none is collected as unnamed in between; a kill leaves the upload as it was, to be finished again.
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
from pathlib import Path

import sqlalchemy as sa

from cellwright.bundle.layout import INDEX, LAYOUT
from cellwright.bundle.manifest import Manifest
from cellwright.families import member
from cellwright.hub import tables
from cellwright.hub.contract import ModelForm, Release, ReleaseFile, Upload, UploadForm
from cellwright.hub.core import Who
from cellwright.hub.formats._contract import Given
from cellwright.hub.models import ensure_model
from cellwright.hub.refusals import Conflict, HubRefused, NotFound
from cellwright.hub.tenants import Tenants


class Intake(Tenants):
    """Makes releases."""

    def take_in(self, who: Who, upload: Upload, file: Path, sha256: str, staging: Path) -> Release:
        """The release of a whole file; `staging`: a folder that may be filled and is emptied by whoever calls.

        Raises:
            HubRefused, BundleError: it is not what the upload said.
        """
        form = upload.form
        if form.sha256 is not None and not hmac.compare_digest(sha256, form.sha256):
            raise HubRefused(
                f"the file's SHA-256 is {sha256[:12]}…, announced was {form.sha256[:12]}…; it was damaged on the way: upload it again"
            )
        shutil.rmtree(staging, ignore_errors=True)
        given = Given(file, form, sha256, self.key, self.trust(who.tenant))
        manifest: Manifest = member("cellwright.hub.formats", form.format, what="format").layout(given, staging)
        release = _release(who.tenant, form, manifest, staging, self.clock())
        with self.store.write() as connection:
            self.refuse_again(connection, who.tenant, form)
            _claim(connection, upload.id, release)
        for stored in release.files:
            self.blobs.put(stored.sha256, staging / stored.path)
        with self.store.write() as connection:
            self._commit(connection, who, upload.id, form, release)
        return release

    def refuse_again(self, connection: sa.Connection, tenant: str, form: UploadForm) -> None:
        """Raises Conflict where the version is there already."""
        t = tables.releases
        same = (t.c.tenant == tenant, t.c.model == form.model, t.c.version == form.version)
        if connection.execute(sa.select(t.c.version).where(*same)).first() is not None:
            raise Conflict(
                f"{form.model} {form.version} is there already and versions never change; upload it as another version"
            )

    def _commit(self, connection: sa.Connection, who: Who, upload: str, form: UploadForm, release: Release) -> None:
        self.refuse_again(connection, who.tenant, form)
        about = ModelForm(title=form.title, description=form.description, figures=form.figures)
        ensure_model(connection, who.tenant, form.model, about, self.clock(), change=False)
        same = {"tenant": release.tenant, "model": release.model, "version": release.version}
        values = {"digest": release.digest, "bytes": release.bytes, "created_s": release.created_s}
        connection.execute(sa.insert(tables.releases).values(**same, **values, document=release.model_dump_json()))
        rows = [{**same, **file.model_dump()} for file in release.files]
        connection.execute(sa.insert(tables.release_files), rows)
        connection.execute(sa.delete(tables.claims).where(tables.claims.c.upload == upload))
        if not connection.execute(sa.delete(tables.uploads).where(tables.uploads.c.id == upload)).rowcount:
            raise NotFound(
                "the upload was given up or has expired while it was checked; its blobs are claimed no more: begin again"
            )
        self.note(connection, who, "release", f"{release.model} {release.version}", f"{release.format}, {release.digest}")


def _release(tenant: str, form: UploadForm, manifest: Manifest, folder: Path, now_s: float) -> Release:
    described = {d.blob: ReleaseFile(path=d.blob, bytes=d.size, sha256=d.hex, media_type=d.mediaType) for d in manifest.blobs}
    documents = [_document(folder, name) for name in (LAYOUT, INDEX)]
    files = (*documents, *described.values())
    return Release(
        tenant=tenant,
        model=form.model,
        version=form.version,
        digest=manifest.digest,
        format=manifest.format,
        bytes=sum(file.bytes for file in files),
        signed_by=manifest.signed_by,
        created_s=now_s,
        figures=form.figures,
        files=files,
        layers={name: d.digest for name, d in manifest.layers.items()},
    )


def _document(folder: Path, name: str) -> ReleaseFile:
    content = (folder / name).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return ReleaseFile(path=name, bytes=len(content), sha256=sha256, media_type="application/json")


def _claim(connection: sa.Connection, upload: str, release: Release) -> None:
    connection.execute(sa.delete(tables.claims).where(tables.claims.c.upload == upload))
    named = sorted({file.sha256 for file in release.files})
    connection.execute(sa.insert(tables.claims), [{"sha256": sha256, "upload": upload} for sha256 in named])
