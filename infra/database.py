"""The SQL database: customer index, manifest of the event log, and how far both go."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import exc

from schemas.errors import ConfigError, DependencyError, EventError, HistoryError, TidegateError

METADATA = sa.MetaData()

CUSTOMERS = sa.Table(
    "customers",
    METADATA,
    sa.Column("customer_id", sa.String(64), primary_key=True),
    # Unknown is 0 for times, -1 for figures and '' for words: what pages are sorted by is never null.
    sa.Column("first_event_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("last_event_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("transactions", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("flagged", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("blocked", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("last_score", sa.Float(53), nullable=False, server_default="-1"),
    sa.Column("last_decision", sa.String(8), nullable=False, server_default=""),
    sa.Column("churn_probability", sa.Float(53), nullable=False, server_default="-1"),
    sa.Column("churn_band", sa.String(8), nullable=False, server_default=""),
    sa.Column("churn_as_of_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("value_at_risk", sa.Float(53), nullable=False, server_default="-1"),
    sa.Column("country", sa.String(2), nullable=False, server_default=""),
    sa.Column("segment", sa.String(32), nullable=False, server_default=""),
    sa.Column("opened_on", sa.String(10), nullable=False, server_default=""),
    sa.Column("profile_ms", sa.BigInteger, nullable=False, server_default="0"),
)
"""One row for each customer with a transaction, a churn score or a profile. No contact data."""

EVENT_FILES = sa.Table(
    "event_files",
    METADATA,
    sa.Column("path", sa.String(128), primary_key=True),
    sa.Column("day", sa.Integer, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("min_ms", sa.BigInteger, nullable=False),
    sa.Column("max_ms", sa.BigInteger, nullable=False),
    sa.Column("written_ms", sa.BigInteger, nullable=False),
    sa.Column("retired_ms", sa.BigInteger, nullable=False, server_default="0"),
)
"""The files of the event log. `day` is since 1970; `retired_ms` is not 0 where another file took its rows."""

SINK_OFFSETS = sa.Table(
    "sink_offsets",
    METADATA,
    sa.Column("topic", sa.String(128), primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
)

ERASED_CUSTOMERS = sa.Table(
    "erased_customers",
    METADATA,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
)
"""Digests of erased customers, and until when nothing of them is taken."""

SINK_META = sa.Table(
    "sink_meta",
    METADATA,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(128), nullable=False),
)

SORTED_BY = (
    "last_event_ms",
    "transactions",
    "flagged",
    "last_score",
    "churn_probability",
    "value_at_risk",
)
"""Columns of `customers` that pages may be sorted by, besides the id; each has an index."""

for _column in SORTED_BY:
    sa.Index(f"customers_by_{_column}", CUSTOMERS.c[_column], CUSTOMERS.c.customer_id)
sa.Index("event_files_by_day", EVENT_FILES.c.retired_ms, EVENT_FILES.c.day)


class Database:
    """An engine, its migrations, and errors in this project's words.

    Args:
        url: SQLAlchemy URL: `sqlite:///FILE` or `postgresql+psycopg://...`.
        timeout_s: Limit of one statement, or of waiting for SQLite's lock.
        damaged: What is raised where the database is damaged: whoever only asks has it as one that is away.

    Raises:
        ConfigError: The URL names no database that is supported.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 10.0, damaged: type[TidegateError] = HistoryError
    ) -> None:
        self._damaged = damaged
        try:
            parsed = sa.make_url(url)
            self.kind = parsed.get_backend_name()
            options: dict[str, Any] = {}
            if self.kind == "sqlite":
                if not parsed.database or parsed.database == ":memory:":
                    raise ConfigError("TIDEGATE_DATABASE_URL: SQLite needs a file, sqlite:///FILE")
                options["connect_args"] = {"timeout": timeout_s}
            elif self.kind == "postgresql":
                limit = f"-c statement_timeout={int(timeout_s * 1000)}"
                options["connect_args"] = {"connect_timeout": max(1, int(timeout_s)), "options": limit}
            else:
                raise ConfigError(f"TIDEGATE_DATABASE_URL: {self.kind} is neither sqlite nor postgresql")
            self.engine = sa.create_engine(parsed, pool_pre_ping=self.kind != "sqlite", **options)
        except (exc.ArgumentError, exc.NoSuchModuleError, ModuleNotFoundError) as bad:
            # Not the URL itself: there may be a password in it.
            raise ConfigError(
                "TIDEGATE_DATABASE_URL: not a database URL that can be used here, for example "
                f"sqlite:///tidegate.db or postgresql+psycopg://USER@HOST/NAME ({type(bad).__name__})"
            ) from None
        self.shown = parsed.set(password=None, username=None, query={}).render_as_string()
        if self.kind == "sqlite":
            sa.event.listen(self.engine, "connect", _tune_sqlite)

    @property
    def insert(self) -> Any:
        """The dialect's own `insert`, which knows `ON CONFLICT`."""
        if self.kind == "sqlite":
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert

    def migrate(self) -> None:
        """Bring the schema to this version; makes the SQLite file where there is none.

        Raises:
            DependencyError: The database does not answer.
            HistoryError: The schema is of a newer version.
        """
        if self.kind == "sqlite":
            Path(str(self.engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.begin() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as unknown:
                raise HistoryError(
                    f"{self.shown} has a schema this version does not know ({unknown}): run the version that "
                    "made it, or a newer one"
                ) from unknown

    def ready(self) -> bool:
        """Whether the schema is there and of this version.

        Raises:
            DependencyError: The database does not answer.
        """
        if self.kind == "sqlite" and not Path(str(self.engine.url.database)).exists():
            return False
        head = ScriptDirectory(str(Path(__file__).parent / "migrations")).get_current_head()
        with self.begin() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return False
            found = connection.execute(sa.text("select version_num from alembic_version")).scalar()
            return bool(found == head)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end, rolled back by an error.

        Raises:
            DependencyError: The database does not answer, or the transaction did not go through.
            EventError: A value is none that it can hold.
            HistoryError: It is damaged, or none (or what else `damaged` says).
        """
        with self._own_words(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def _own_words(self) -> Iterator[None]:
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, exc.InternalError) as away:
            # Not its own words: SQLAlchemy repeats the statement with its values.
            original = getattr(away, "orig", None)
            reason = str(original).strip().splitlines()[0] if original else "no connection in time"
            raise DependencyError(f"the database {self.shown} does not answer: {reason}") from None
        except exc.DataError:
            raise EventError(
                "unstorable", "a value has a character that the database does not know (NUL); leave it out"
            ) from None
        except (exc.IntegrityError, exc.ProgrammingError, exc.NotSupportedError):
            raise
        except exc.DatabaseError as bad:
            # What is left of this kind is SQLite's word for a file that it cannot read.
            raise self._is_damaged(bad.orig) from None

    def _is_damaged(self, reason: object) -> TidegateError:
        return self._damaged(
            f"the database {self.shown} is damaged, or no database ({reason}): restore it together with the "
            "folder of events, or start again with an empty folder and an empty database"
        )

    def scrub(self) -> bool:
        """Have deleted rows out of SQLite's journal as well; false where a reader is in the way: try again.

        PostgreSQL keeps them until it vacuums.

        Raises:
            DependencyError: The database does not answer.
            HistoryError: It is damaged.
        """
        if self.kind != "sqlite":
            return True
        # Not in a transaction, where nothing is moved out of the journal.
        with self._own_words(), self.engine.connect() as connection:
            raw = connection.connection.cursor()
            try:
                busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.OperationalError as away:
                raise DependencyError(f"the database {self.shown} does not answer: {away}") from away
            except sqlite3.DatabaseError as bad:
                raise self._is_damaged(bad) from bad
            finally:
                raw.close()
        return not busy

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _tune_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    # Readers go on while the sink writes. A power cut may undo the newest commits, whole: they are
    # read from the log again.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    # What is deleted is overwritten: an erased customer is not to be found in free pages.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()
