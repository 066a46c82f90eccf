"""Version 2: metadata of raw data (M.3387 10.1), and why each node was chosen or not (8.2)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From version 1; requests that are there have no choices yet."""
    op.create_table(
        "raw_metadata",
        sa.Column("node", sa.String(64), sa.ForeignKey("nodes.name"), primary_key=True),
        sa.Column("dataset", sa.String(128), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("stored_s", sa.Double, nullable=False),
    )
    op.add_column("requests", sa.Column("choices", sa.Text, nullable=False, server_default="[]"))


def downgrade() -> None:
    """To version 1."""
    op.drop_column("requests", "choices")
    op.drop_table("raw_metadata")
