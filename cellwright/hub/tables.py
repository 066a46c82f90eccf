"""The hub's tables as they are after the last migration. Documents are JSON of contract/; times are seconds since 1970, UTC.

A column beside a document is there to be searched, or changed by itself.
"""

from __future__ import annotations

import sqlalchemy as sa

schema = sa.MetaData()

tenants = sa.Table(
    "tenants",
    schema,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("quota", sa.Text, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
    sa.Column("grants_from_s", sa.Double, nullable=False, server_default="0"),  # grants from before are believed no more
)
tokens = sa.Table(
    "tokens",
    schema,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
    sa.Column("expires_s", sa.Double),
    sa.Column("revoked_s", sa.Double),
)
# grants that were taken back by name (contract.Revocation)
revocations = sa.Table(
    "revocations",
    schema,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("from_s", sa.Double, nullable=False),
    sa.Column("until_s", sa.Double, nullable=False),
)
keys = sa.Table(
    "keys",
    schema,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("pem", sa.Text, nullable=False),
)
models = sa.Table(
    "models",
    schema,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
)
releases = sa.Table(
    "releases",
    schema,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("version", sa.String(150), primary_key=True),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
)
release_files = sa.Table(
    "release_files",
    schema,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("version", sa.String(150), primary_key=True),
    sa.Column("path", sa.String(100), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("media_type", sa.String(200), nullable=False),
)
# blobs that an upload is about to name: kept although no release names them yet
claims = sa.Table(
    "claims",
    schema,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("upload", sa.String(64), primary_key=True),
)
uploads = sa.Table(
    "uploads",
    schema,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("form", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_s", sa.Double, nullable=False),
    sa.Column("expires_s", sa.Double, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
)
# document null: taken back; the number goes on growing
publications = sa.Table(
    "publications",
    schema,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("document", sa.Text),
    sa.Column("published_s", sa.Double, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
)
areas = sa.Table(
    "areas",
    schema,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
rules = sa.Table(
    "rules",
    schema,
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)
# desired: JSON of contract.Desired as of the revision
edges = sa.Table(
    "edges",
    schema,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("registered_s", sa.Double, nullable=False),
    sa.Column("seen_s", sa.Double),
    sa.Column("heartbeat", sa.Text),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("desired", sa.Text, nullable=False),
)
fetches = sa.Table(
    "fetches",
    schema,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("time_s", sa.Double, nullable=False, index=True),
    sa.Column("reported_by", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("received_s", sa.Double, nullable=False, server_default="0", index=True),  # by the hub's clock
    sa.Index("ix_fetches_tenant_time", "tenant", "time_s"),
)
qos = sa.Table(
    "qos",
    schema,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("session", sa.String(64), primary_key=True),
    sa.Column("started_s", sa.Double, nullable=False, index=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("received_s", sa.Double, nullable=False, server_default="0", index=True),  # last, by the hub's clock
    sa.Index("ix_qos_tenant_started", "tenant", "started_s"),
)
# how many reports there were that are not kept any more (retention.py)
dropped = sa.Table(
    "dropped",
    schema,
    sa.Column("what", sa.String(16), primary_key=True),  # table
    sa.Column("rows", sa.BigInteger, nullable=False),
)
# line: the record as it was hashed (audit.py)
audit = sa.Table(
    "audit",
    schema,
    sa.Column("index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("line", sa.Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
