"""Version 1: tokens, requests, nodes, permissions, links, topologies and models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ACTIVE = sa.text("status IN ('queued', 'running', 'preempted')")


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("ceiling", sa.Text, nullable=False),
        sa.Column("created_s", sa.Double, nullable=False),
        sa.Column("revoked_s", sa.Double),
    )
    _requests()
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("modified_s", sa.Double, nullable=False),
    )
    op.create_table(
        "statuses",
        sa.Column("node", sa.String(64), sa.ForeignKey("nodes.name"), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "holdings",
        sa.Column("node", sa.String(64), sa.ForeignKey("nodes.name"), primary_key=True),
        sa.Column("dataset", sa.String(128), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "links",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("target", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    _of_requests()


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("class", sa.String(16), nullable=False),
        sa.Column("submitted_s", sa.Double, nullable=False),
        sa.Column("started_s", sa.Double),
        sa.Column("ended_s", sa.Double),
        sa.Column("rounds", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("nodes", sa.Text, nullable=False),
        sa.Column("training", sa.Text, nullable=False),
    )
    op.create_index(
        "one_active_name", "requests", ["client", "name"], unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE
    )


def _of_requests() -> None:
    op.create_table(
        "permissions",
        sa.Column("request", sa.String(32), sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("node", sa.String(64), sa.ForeignKey("nodes.name"), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("granted_s", sa.Double, nullable=False),
        sa.Column("revoked_s", sa.Double),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "topologies",
        sa.Column("request", sa.String(32), sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("made_s", sa.Double, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("request", sa.String(32), sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("stored_s", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """To an empty database."""
    for table in ("models", "topologies", "permissions", "links", "holdings", "statuses", "nodes", "requests", "tokens"):
        op.drop_table(table)
