"""Models and their releases: what a tenant has, what others share, and the files of each release.

A model is found by (tenant, name) with the asking tenant's own name in the key, or another's where it is shared: by one query, the
same for what there is not and for what is another's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from cellwright.hub import tables
from cellwright.hub.contract import Model, ModelForm, Publication, Published, Release
from cellwright.hub.core import Core, Who
from cellwright.hub.refusals import Conflict, NotFound
from cellwright.hub.tenants import check_quota

_BATCH = 500  # hashes in one query


@dataclass(frozen=True)
class BlobFile:
    """A file of a release, to be read from the blobs."""

    path: str
    sha256: str
    bytes: int
    media_type: str


class Models(Core):
    """List, make, change and delete models and releases."""

    def models(self, who: Who, *, shared: bool = False) -> tuple[Model, ...]:
        """The asking tenant's models; with `shared`, those that others share."""
        t = tables.models
        mine = sa.and_(t.c.tenant != who.tenant, t.c.visibility == "shared") if shared else t.c.tenant == who.tenant
        with self.store.read() as connection:
            rows = connection.execute(sa.select(t).where(mine).order_by(t.c.tenant, t.c.name)).mappings().all()
            return tuple(_model(connection, row) for row in rows)

    def model(self, who: Who, model: str, owner: str | None = None) -> Model:
        """One model. Raises NotFound."""
        with self.store.read() as connection:
            return _model(connection, model_row(connection, who.tenant, model, owner))

    def put_model(self, who: Who, model: str, form: ModelForm) -> Model:
        """Make a model, or change what is said of it. Raises TooLarge (quota)."""
        same = (tables.models.c.tenant == who.tenant, tables.models.c.name == model)
        otherwise = sa.select(tables.models.c.name).where(*same, tables.models.c.visibility != form.visibility)
        with self.changing(concerns=lambda connection: connection.execute(otherwise).first() is not None) as connection:
            ensure_model(connection, who.tenant, model, form, self.clock(), change=True)
            self.note(connection, who, "model put", model, form.visibility)
            return _model(connection, model_row(connection, who.tenant, model))

    def delete_model(self, who: Who, model: str) -> None:
        """Delete a model with its releases and the tenant's rules on it.

        Raises:
            NotFound: there is none.
            Conflict: it is published, or an upload of it is open.
        """
        with self.changing() as connection:
            model_row(connection, who.tenant, model)
            if publication_of(connection, who.tenant, model) is not None:
                raise Conflict(f"{model} is published; take it back first (DELETE /v1/models/{model}/publication)")
            f = tables.release_files.c
            named = _named(connection, f.tenant == who.tenant, f.model == model)
            for table in (tables.release_files, tables.releases, tables.publications):
                connection.execute(sa.delete(table).where(table.c.tenant == who.tenant, table.c.model == model))
            c = tables.rules.c
            connection.execute(sa.delete(tables.rules).where(c.tenant == who.tenant, c.owner == who.tenant, c.model == model))
            t = tables.models
            connection.execute(sa.delete(t).where(t.c.tenant == who.tenant, t.c.name == model))
            self.note(connection, who, "model delete", model)
        self.collect(named)

    def release(self, who: Who, model: str, version: str, owner: str | None = None) -> Release:
        """One release. Raises NotFound."""
        with self.store.read() as connection:
            tenant = model_row(connection, who.tenant, model, owner)["tenant"]
            return release_of(connection, tenant, model, version)

    def delete_release(self, who: Who, model: str, version: str) -> None:
        """Delete a version. Raises NotFound; Conflict where it is published."""
        with self.changing() as connection:
            release_of(connection, who.tenant, model, version)
            published = publication_of(connection, who.tenant, model)
            if published is not None and version in published.shares:
                raise Conflict(f"{model} {version} is published; publish another version first")
            f = tables.release_files.c
            named = _named(connection, f.tenant == who.tenant, f.model == model, f.version == version)
            for table in (tables.release_files, tables.releases):
                same = (table.c.tenant == who.tenant, table.c.model == model, table.c.version == version)
                connection.execute(sa.delete(table).where(*same))
            self.note(connection, who, "release delete", f"{model} {version}")
        self.collect(named)

    def file(self, who: Who, model: str, version: str, path: str, owner: str | None = None) -> BlobFile:
        """A file of a release. Raises NotFound."""
        with self.store.read() as connection:
            tenant = model_row(connection, who.tenant, model, owner)["tenant"]
            return file_of(connection, tenant, model, version, path)

    def content(self, file: BlobFile, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes [start, stop) of a file. Raises HubError where the blob was lost."""
        return self.blobs.read(file.sha256, start, stop)

    def collect(self, among: Collection[str] | None = None) -> int:
        """Delete blobs that no release names and no upload is about to name (of all there are, or `among` some); returns how many.

        In a transaction that writes, so that none is named meanwhile.
        """
        with self.store.write() as connection:
            candidates = sorted(self.blobs.known() if among is None else among)
            named = {
                sha256 for at in range(0, len(candidates), _BATCH) for sha256 in _still(connection, candidates[at : at + _BATCH])
            }
            gone = [sha256 for sha256 in candidates if sha256 not in named]
            for sha256 in gone:
                self.blobs.delete(sha256)
        return len(gone)


def _named(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> set[str]:
    """Hashes of blobs that files of releases name."""
    return set(connection.execute(sa.select(tables.release_files.c.sha256).where(*where)).scalars())


def _still(connection: sa.Connection, blobs: list[str]) -> set[str]:
    """Those of some blobs that are named or claimed."""
    claimed = connection.execute(sa.select(tables.claims.c.sha256).where(tables.claims.c.sha256.in_(blobs))).scalars()
    return _named(connection, tables.release_files.c.sha256.in_(blobs)) | set(claimed)


def model_row(connection: sa.Connection, tenant: str, model: str, owner: str | None = None) -> sa.RowMapping:
    """The row of a model that `tenant` may see: its own, or `owner`'s if that shares it. Raises NotFound, always in the same words."""
    t = tables.models
    visible = sa.or_(t.c.tenant == tenant, t.c.visibility == "shared")
    wanted = sa.select(t).where(t.c.tenant == (owner or tenant), t.c.name == model, visible)
    found = connection.execute(wanted).mappings().one_or_none()
    if found is None:
        raise NotFound(
            f"there is no model '{model}' for you; GET /v1/models lists yours, GET /v1/models?shared=true those of others"
        )
    return found


def ensure_model(connection: sa.Connection, tenant: str, model: str, form: ModelForm, now_s: float, *, change: bool) -> None:
    """Make a model where there is none; with `change`, let the form replace what is said of it. Raises TooLarge."""
    t = tables.models
    values = {"visibility": form.visibility, "document": form.model_dump_json()}
    same = (t.c.tenant == tenant, t.c.name == model)
    if connection.execute(sa.select(t.c.name).where(*same)).first() is None:
        check_quota(connection, tenant, models=1)
        connection.execute(sa.insert(t).values(tenant=tenant, name=model, created_s=now_s, **values))
    elif change:
        connection.execute(sa.update(t).where(*same).values(**values))


def release_of(connection: sa.Connection, tenant: str, model: str, version: str) -> Release:
    """A release of a model. Raises NotFound."""
    t = tables.releases
    same = (t.c.tenant == tenant, t.c.model == model, t.c.version == version)
    found = connection.execute(sa.select(t.c.document).where(*same)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no release '{model} {version}' for you; GET /v1/models/{model} lists its versions")
    return Release.model_validate_json(found)


def file_of(connection: sa.Connection, tenant: str, model: str, version: str, path: str) -> BlobFile:
    """A file of a release. Raises NotFound."""
    t = tables.release_files
    same = (t.c.tenant == tenant, t.c.model == model, t.c.version == version, t.c.path == path)
    found = connection.execute(sa.select(t).where(*same)).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no file '{path[:120]}' of '{model} {version}' for you; the release lists its files")
    return BlobFile(path, found["sha256"], found["bytes"], found["media_type"])


def publication_of(connection: sa.Connection, tenant: str, model: str) -> Publication | None:
    """What is published of a model; None: nothing."""
    t = tables.publications
    found = connection.execute(sa.select(t.c.document).where(t.c.tenant == tenant, t.c.model == model)).scalar_one_or_none()
    return None if found is None else Publication.model_validate_json(found)


def published_row(connection: sa.Connection, tenant: str, model: str) -> Published | None:
    """What is published of a model, by whom and since when."""
    t = tables.publications
    row = connection.execute(sa.select(t).where(t.c.tenant == tenant, t.c.model == model)).mappings().one_or_none()
    if row is None or row["document"] is None:
        return None
    publication = Publication.model_validate_json(row["document"])
    more = {"model": model, "number": row["number"], "published_s": row["published_s"], "by": row["who"]}
    return Published(**publication.model_dump(), **more)


def versions_of(connection: sa.Connection, tenant: str, model: str) -> tuple[str, ...]:
    """Versions of a model, the oldest upload first."""
    t = tables.releases
    wanted = sa.select(t.c.version).where(t.c.tenant == tenant, t.c.model == model).order_by(t.c.created_s, t.c.version)
    return tuple(connection.execute(wanted).scalars())


def _model(connection: sa.Connection, row: sa.RowMapping) -> Model:
    form = ModelForm.model_validate_json(row["document"])
    return Model(
        **form.model_dump(),
        tenant=row["tenant"],
        name=row["name"],
        created_s=row["created_s"],
        versions=versions_of(connection, row["tenant"], row["name"]),
        publication=published_row(connection, row["tenant"], row["name"]),
    )
