"""Versions of the SQL schema, for Alembic."""
