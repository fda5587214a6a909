"""Customer index, manifest of the event log, offsets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SORTED_BY = ("last_event_ms", "transactions", "flagged", "last_score", "churn_probability", "value_at_risk")


def upgrade() -> None:
    """Forwards."""

    def number(name: str, unknown: str) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger, nullable=False, server_default=unknown)

    def figure(name: str) -> sa.Column[float]:
        return sa.Column(name, sa.Float(53), nullable=False, server_default="-1")

    def word(name: str, length: int) -> sa.Column[str]:
        return sa.Column(name, sa.String(length), nullable=False, server_default="")

    op.create_table(
        "customers",
        sa.Column("customer_id", sa.String(64), primary_key=True),
        number("first_event_ms", "0"),
        number("last_event_ms", "0"),
        number("transactions", "0"),
        number("flagged", "0"),
        number("blocked", "0"),
        figure("last_score"),
        word("last_decision", 8),
        figure("churn_probability"),
        word("churn_band", 8),
        number("churn_as_of_ms", "0"),
        figure("value_at_risk"),
        word("country", 2),
        word("segment", 32),
        word("opened_on", 10),
    )
    for column in _SORTED_BY:
        op.create_index(f"customers_by_{column}", "customers", [column, "customer_id"])
    op.create_table(
        "event_files",
        sa.Column("path", sa.String(128), primary_key=True),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("min_ms", sa.BigInteger, nullable=False),
        sa.Column("max_ms", sa.BigInteger, nullable=False),
        sa.Column("written_ms", sa.BigInteger, nullable=False),
        number("retired_ms", "0"),
    )
    op.create_index("event_files_by_day", "event_files", ["retired_ms", "day"])
    op.create_table(
        "sink_offsets",
        sa.Column("topic", sa.String(128), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sink_meta",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(128), nullable=False),
    )


def downgrade() -> None:
    """Backwards."""
    for table in ("sink_meta", "sink_offsets", "event_files", "customers"):
        op.drop_table(table)
