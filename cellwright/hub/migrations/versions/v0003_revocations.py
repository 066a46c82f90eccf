"""Version 3: grants are taken back one by one; reports are kept for a while, by when they came, and counted when they go."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIMES = {"fetches": "time_s", "qos": "started_s"}


def upgrade() -> None:
    """From version 2; of reports that are there the hub knows only the time that they tell."""
    op.create_table(
        "revocations",
        sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("from_s", sa.Double, nullable=False),
        sa.Column("until_s", sa.Double, nullable=False),
    )
    op.create_table(
        "dropped",
        sa.Column("what", sa.String(16), primary_key=True),
        sa.Column("rows", sa.BigInteger, nullable=False),
    )
    for table, time in _TIMES.items():
        op.add_column(table, sa.Column("received_s", sa.Double, nullable=False, server_default="0"))
        rows = sa.table(table, sa.column(time), sa.column("received_s"))
        op.execute(sa.update(rows).values(received_s=rows.c[time]))
        op.create_index(f"ix_{table}_received_s", table, ["received_s"])
