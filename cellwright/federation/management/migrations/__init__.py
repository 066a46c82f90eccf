"""Migrations of the FMLMS's database, by alembic; run by `store.Store` when it opens one."""
