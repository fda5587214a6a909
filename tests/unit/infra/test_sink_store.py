from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from infra.database import CUSTOMERS, METADATA, Database
from infra.event_files import EventFile
from infra.sink_store import SinkCommit, SinkFenced, SinkStore
from schemas.errors import ConfigError, DependencyError, HistoryError

SOURCE, SCORES = ("transactions", 0), ("scores.fraud", 0)


@pytest.fixture
def database(tmp_path):
    found = Database(f"sqlite:///{tmp_path}/new/folder/tidegate.db")
    found.migrate()
    yield found
    found.close()


@pytest.fixture
def store(database):
    return SinkStore(database)


def file(number, day=100):
    return EventFile(f"day=x/{number}.parquet", day, 10, 1000, 1, 2, 3)


def activity(count, time_ms, score=0.1, decision="allow"):
    return {
        "first_event_ms": time_ms,
        "last_event_ms": time_ms,
        "transactions": count,
        "flagged": int(decision != "allow"),
        "blocked": int(decision == "block"),
        "last_score": score,
        "last_decision": decision,
    }


def customers(database):
    with database.begin() as connection:
        return {row.customer_id: row for row in connection.execute(sa.select(CUSTOMERS))}


def test_the_migrations_make_what_the_tables_say(database):
    with database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    database.migrate()
    assert database.ready()


def test_a_database_that_was_never_migrated_is_not_ready(tmp_path):
    found = Database(f"sqlite:///{tmp_path}/none.db")
    assert not found.ready()
    assert not Path(tmp_path / "none.db").exists()
    with found.begin() as connection:
        connection.execute(sa.text("create table other (x int)"))
    assert not found.ready()


def test_a_schema_of_a_newer_version_is_refused(database):
    with database.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    assert not database.ready()
    with pytest.raises(HistoryError, match="a schema this version does not know"):
        database.migrate()


def test_offsets_files_and_customers_change_together(store, database):
    store.commit(SinkCommit({}, {SOURCE: 5, SCORES: 4}, [file(1)], {"c-1": activity(4, 1000)}))
    store.commit(SinkCommit({SOURCE: 5}, {SOURCE: 9}, [file(2)], {"c-1": activity(3, 500, 0.9, "block")}))
    assert store.offsets() == {SOURCE: 9, SCORES: 4}
    assert store.files() == [file(1), file(2)]
    row = customers(database)["c-1"]
    assert (row.transactions, row.flagged, row.blocked) == (7, 1, 1)
    assert (row.first_event_ms, row.last_event_ms) == (500, 1000)
    # The late event is not the newest one.
    assert (row.last_score, row.last_decision) == (0.1, "allow")
    assert row.churn_probability == -1


def test_a_commit_whose_answer_was_lost_is_not_applied_again(store, database):
    commit = SinkCommit({}, {SOURCE: 5}, [file(1)], {"c-1": activity(4, 1000)})
    store.commit(commit)
    store.commit(commit)
    assert customers(database)["c-1"].transactions == 4
    assert store.files() == [file(1)]


@pytest.mark.parametrize("expected", [{}, {SOURCE: 3}])
def test_a_second_sink_is_fenced_and_changes_nothing(store, database, expected):
    store.commit(SinkCommit({}, {SOURCE: 5}, [file(1)], {"c-1": activity(4, 1000)}))
    with pytest.raises(SinkFenced, match="another sink"):
        store.commit(SinkCommit(expected, {SOURCE: 6, SCORES: 6}, [file(2)], {"c-1": activity(1, 1)}))
    assert store.offsets() == {SOURCE: 5}
    assert store.files() == [file(1)]
    assert customers(database)["c-1"].transactions == 4


def test_churn_and_profiles_are_the_newest_and_need_no_transaction(store, database):
    def churn(as_of_ms, proba):
        return {
            "c-1": {
                "churn_probability": proba,
                "churn_band": "low",
                "churn_as_of_ms": as_of_ms,
                "value_at_risk": 1.0,
            }
        }

    profile = {"country": "FR", "segment": "retail", "opened_on": "2020-01-01"}
    store.commit(SinkCommit(churn=churn(20, 0.5), profiles={"c-2": profile}))
    store.commit(SinkCommit(churn=churn(10, 0.9)))
    found = customers(database)
    assert found["c-1"].churn_probability == 0.5
    assert (found["c-2"].country, found["c-2"].transactions, found["c-2"].last_event_ms) == ("FR", 0, 0)
    store.commit(SinkCommit(profiles={"c-2": dict.fromkeys(profile, "")}))
    assert customers(database)["c-2"].country == ""


def test_a_merged_file_takes_the_place_of_its_parts(store):
    store.commit(SinkCommit({}, {SOURCE: 1}, [file(1), file(2), file(3, day=99)]))
    assert store.replace([file(1), file(2)], file(4))
    assert store.files() == [file(3, day=99), file(4)]
    assert store.files(days=[100]) == [file(4)]
    assert not store.replace([file(1), file(4)], file(5))
    assert store.files() == [file(3, day=99), file(4)]
    assert store.named() == {f"day=x/{n}.parquet" for n in (1, 2, 3, 4)}
    assert set(store.retired(2**60)) == {"day=x/1.parquet", "day=x/2.parquet"}
    assert store.retired(1) == []
    store.forget(store.retired(2**60))
    assert store.named() == {"day=x/3.parquet", "day=x/4.parquet"}


def test_an_event_log_of_another_cluster_is_refused(store):
    store.claim("one")
    store.claim("one")
    with pytest.raises(HistoryError, match="Kafka cluster one, this is two"):
        store.claim("two")


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sqlite://", "mysql://root:secret@h/d", "postgresql+nodriver://u:secret@h/d"]
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url):
    with pytest.raises(ConfigError, match="TIDEGATE_DATABASE_URL") as refused:
        Database(url)
    assert "secret" not in str(refused.value)


def test_a_database_that_is_away_is_a_dependency_away_and_no_password_is_shown(tmp_path):
    (tmp_path / "folder").mkdir()
    away = Database(f"sqlite:///{tmp_path}/folder")
    with pytest.raises(DependencyError, match="does not answer"), away.begin():
        pass
    assert "secret" not in Database("postgresql+psycopg://u:secret@127.0.0.1:1/d?password=secret").shown
