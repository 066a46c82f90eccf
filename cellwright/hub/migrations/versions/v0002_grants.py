"""Version 2: grants of a tenant can be taken back; reports of a tenant are found without looking at others'."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From version 1."""
    op.add_column("tenants", sa.Column("grants_from_s", sa.Double, nullable=False, server_default="0"))
    op.create_index("ix_fetches_tenant_time", "fetches", ["tenant", "time_s"])
    op.create_index("ix_qos_tenant_started", "qos", ["tenant", "started_s"])
