"""Erased customers, and when a profile is of."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forwards."""
    op.create_table(
        "erased_customers",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    op.add_column("customers", sa.Column("profile_ms", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Backwards."""
    op.drop_column("customers", "profile_ms")
    op.drop_table("erased_customers")
