"""Publication: which version of a model is in use. One transaction changes it and what every edge shall hold."""

from __future__ import annotations

import sqlalchemy as sa

from cellwright.hub import tables
from cellwright.hub.contract import Publication, Published
from cellwright.hub.core import Core, Who
from cellwright.hub.desired import holders
from cellwright.hub.models import model_row, published_row, release_of
from cellwright.hub.refusals import Changed, NotFound


class Publishing(Core):
    """Publish, look, take back."""

    def publish(self, who: Who, model: str, publication: Publication, *, expected: int | None = None) -> Published:
        """Make a version the one in use. `expected`: the number that the publication has now (0: there is none).

        Raises:
            NotFound: no such model or release.
            Changed: another has published since.
        """
        with self.changing() as connection:
            model_row(connection, who.tenant, model)
            for version in publication.shares:
                release_of(connection, who.tenant, model, version)
            self._record(connection, who, model, publication.model_dump_json(), expected)
            detail = ", ".join(f"{version}: {share:g}" for version, share in publication.shares.items())
            self.note(connection, who, "publish", f"{model} {publication.version}", detail)
        return self.publication(who, model)

    def unpublish(self, who: Who, model: str) -> None:
        """Take a model off all edges. Raises NotFound."""
        with self.changing() as connection:
            model_row(connection, who.tenant, model)
            if published_row(connection, who.tenant, model) is None:
                raise NotFound(f"{model} is not published")
            self._record(connection, who, model, None, None)
            self.note(connection, who, "unpublish", model)

    def publication(self, who: Who, model: str, owner: str | None = None) -> Published:
        """What is published of a model, and the edges that shall hold it. Raises NotFound."""
        with self.store.read() as connection:
            tenant = model_row(connection, who.tenant, model, owner)["tenant"]
            found = published_row(connection, tenant, model)
            if found is None:
                raise NotFound(f"{model} is not published; POST /v1/models/{model}/publication does it")
            edges = tuple(row["name"] for row in holders(connection, tenant, model))
        return found.model_copy(update={"edges": edges})

    def _record(self, connection: sa.Connection, who: Who, model: str, document: str | None, expected: int | None) -> None:
        t = tables.publications
        same = (t.c.tenant == who.tenant, t.c.model == model)
        row = connection.execute(sa.select(t.c.number, t.c.document).where(*same)).one_or_none()
        number = row.number if row else 0
        standing = number if row and row.document is not None else 0
        if expected is not None and expected not in (standing, number if standing else 0):
            raise Changed(
                f"{model} was published by another meanwhile (publication {standing}, expected {expected}); look at it, then decide again"
            )
        values = {"number": number + 1, "document": document, "published_s": self.clock(), "who": who.label}
        if row:
            connection.execute(sa.update(t).where(*same).values(**values))
        else:
            connection.execute(sa.insert(t).values(tenant=who.tenant, model=model, **values))
