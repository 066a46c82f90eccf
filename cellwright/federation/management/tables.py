"""The FMLMS's tables as they are after the last migration. Documents are the JSON of records.py; times are seconds since 1970, UTC.

A column beside a document is there to be searched, or changed by itself.
"""

from __future__ import annotations

import sqlalchemy as sa

schema = sa.MetaData()
ACTIVE = ("queued", "running", "preempted")


def _name(column: str = "name", *more: sa.schema.SchemaItem, primary_key: bool = True) -> sa.Column[str]:
    return sa.Column(column, sa.String(64), *more, primary_key=primary_key, nullable=False)


def _document(column: str = "document") -> sa.Column[str]:
    return sa.Column(column, sa.Text, nullable=False)


def _time(column: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(column, sa.Double, nullable=nullable)


def _request() -> sa.Column[str]:
    return sa.Column("request", sa.String(32), sa.ForeignKey("requests.id"), primary_key=True)


def _node() -> sa.Column[str]:
    return _name("node", sa.ForeignKey("nodes.name"))


tokens = sa.Table(
    "tokens",
    schema,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("scope", sa.String(16), nullable=False),
    _name(primary_key=False),
    sa.Column("hash", sa.String(64), nullable=False),  # SHA-256 of the token, hexadecimal
    _document("ceiling"),  # the most that a node may claim for itself
    _time("created_s"),
    _time("revoked_s", nullable=True),
)
requests = sa.Table(
    "requests",
    schema,
    sa.Column("id", sa.String(32), primary_key=True),
    _name("client", primary_key=False),
    _name(primary_key=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("class", sa.String(16), nullable=False),
    _time("submitted_s"),
    _time("started_s", nullable=True),
    _time("ended_s", nullable=True),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    _document(),
    _document("nodes"),  # that it has reserved while it runs
    _document("training"),
    sa.Column("choices", sa.Text, nullable=False, server_default="[]"),
    sa.Index(
        "one_active_name",
        "client",
        "name",
        unique=True,
        sqlite_where=sa.text("status IN ('queued', 'running', 'preempted')"),
        postgresql_where=sa.text("status IN ('queued', 'running', 'preempted')"),
    ),
)
nodes = sa.Table("nodes", schema, _name(), _document(), _time("modified_s"))
statuses = sa.Table("statuses", schema, _node(), _document())
holdings = sa.Table("holdings", schema, _node(), sa.Column("dataset", sa.String(128), primary_key=True), _document())
links = sa.Table("links", schema, _name("source"), _name("target"), _document())
permissions = sa.Table(
    "permissions",
    schema,
    _request(),
    _node(),
    _document(),
    _time("granted_s"),
    _time("revoked_s", nullable=True),
    sa.Column("reason", sa.Text, nullable=False),
)
topologies = sa.Table(
    "topologies", schema, _request(), sa.Column("version", sa.Integer, primary_key=True), _document(), _time("made_s")
)
models = sa.Table(
    "models",
    schema,
    _request(),
    sa.Column("kind", sa.String(16), primary_key=True),
    _document(),
    sa.Column("content", sa.LargeBinary, nullable=False),
    _time("stored_s"),
)
raw_metadata = sa.Table(
    "raw_metadata",
    schema,
    _node(),
    sa.Column("dataset", sa.String(128), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
    _time("stored_s"),
)
