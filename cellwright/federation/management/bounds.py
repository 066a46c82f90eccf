"""How much the FMLMS keeps of one node, so that none can fill the database (interface 2).

links         MOST_LINKS that begin at a node; one that is known is replaced, and counts once
holdings      MOST_DATASETS of a node
metadata      MOST_METADATA_BYTES a document (413); MOST_VERSIONS of a data set; MOST_NODE_BYTES of all that a node sent (else 422)
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from cellwright.errors import Refused
from cellwright.federation.management import tables
from cellwright.federation.management.records import Link
from cellwright.federation.management.refusals import TooLarge

MOST_LINKS = 10_000
MOST_DATASETS = 100
MOST_VERSIONS = 1_000
MOST_METADATA_BYTES = 256 << 10
MOST_NODE_BYTES = 64 << 20


def check_links(connection: sa.Connection, links: Iterable[Link]) -> None:
    """Whether these links may be kept with those that are known.

    Raises:
        Refused: more would begin at one node than it may have.
    """
    ends: dict[str, set[str]] = {}
    for link in links:
        ends.setdefault(link.source, set()).add(link.target)
    c = tables.links.c
    for source, targets in ends.items():
        known = set(connection.execute(sa.select(c.target).where(c.source == source)).scalars())
        if len(known | targets) > MOST_LINKS:
            raise Refused(
                f"{source} would have {len(known | targets)} links, at most {MOST_LINKS} that begin at one node are kept; report "
                "those to nodes that it works with"
            )


def check_dataset(connection: sa.Connection, table: sa.Table, node: str, dataset: str) -> None:
    """Whether a node may say something of one more data set; `table`: holdings or raw_metadata.

    Raises:
        Refused: it has said it of too many others.
    """
    known = set(connection.execute(sa.select(table.c.dataset).where(table.c.node == node).distinct()).scalars())
    if dataset not in known and len(known) >= MOST_DATASETS:
        raise Refused(
            f"{node} has told of {len(known)} data sets, at most {MOST_DATASETS} of one node are kept; '{dataset}' is one more. "
            "An operator can register its data under another node's name"
        )


def check_metadata(connection: sa.Connection, node: str, dataset: str, content_bytes: int, version: int) -> None:
    """Whether one more version of metadata may be kept.

    Raises:
        TooLarge: the document alone is too large.
        Refused: there are too many versions, data sets or bytes of this node.
    """
    if content_bytes > MOST_METADATA_BYTES:
        raise TooLarge(f"metadata of {content_bytes:,} bytes, at most {MOST_METADATA_BYTES:,} are kept of one version; tell less")
    check_dataset(connection, tables.raw_metadata, node, dataset)
    if version > MOST_VERSIONS:
        raise Refused(
            f"{node} has given {version - 1} versions of the metadata of '{dataset}', and no more are kept; send them only when the "
            "data changed, or under a new data set's name"
        )
    c = tables.raw_metadata.c
    kept_bytes = connection.execute(sa.select(sa.func.sum(sa.func.length(c.content))).where(c.node == node)).scalar_one() or 0
    if kept_bytes + content_bytes > MOST_NODE_BYTES:
        raise Refused(f"metadata of {node} take {kept_bytes:,} bytes already, at most {MOST_NODE_BYTES:,} of one node are kept")
