from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from infra.database import CUSTOMERS, METADATA, SINK_META, Database
from infra.event_files import EventFile
from infra.sink_commit import SinkCommit, record_name
from infra.sink_store import SinkFenced, SinkStore
from schemas.erasure import erased_name
from schemas.errors import ConfigError, DependencyError, HistoryError

SOURCE, SCORES = ("transactions", 0), ("scores.fraud", 0)
of_a_file = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


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


@pytest.mark.parametrize("expected", [{}, {SOURCE: 5}])
def test_a_commit_of_offsets_alone_whose_answer_was_lost_is_not_anothers(store, expected):
    if expected:
        store.commit(SinkCommit({}, expected))
    commit = SinkCommit(expected, {SOURCE: 9, SCORES: 4})
    store.commit(commit)
    store.commit(commit)
    assert store.offsets() == {SOURCE: 9, SCORES: 4}


def test_a_second_sink_is_fenced_also_where_it_would_change_the_same(store):
    """Both read nothing but bad messages: what they would store is equal, and one of them is too many."""
    store.commit(SinkCommit({}, {SOURCE: 5}))
    mine, others = (SinkCommit({SOURCE: 5}, {SOURCE: 9}) for _ in range(2))
    store.commit(others)
    with pytest.raises(SinkFenced, match="another sink"):
        store.commit(mine)
    store.commit(SinkCommit({SOURCE: 9}, {SOURCE: 10}))
    with pytest.raises(SinkFenced, match="another sink"):
        store.commit(others)
    assert store.offsets() == {SOURCE: 10}


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

    profile = {"country": "FR", "segment": "retail", "opened_on": "2020-01-01", "profile_ms": 5}
    store.commit(SinkCommit(churn=churn(20, 0.5), profiles={"c-2": profile}))
    store.commit(SinkCommit(churn=churn(10, 0.9)))
    found = customers(database)
    assert found["c-1"].churn_probability == 0.5
    assert (found["c-2"].country, found["c-2"].transactions, found["c-2"].last_event_ms) == ("FR", 0, 0)
    store.commit(SinkCommit(profiles={"c-2": {**dict.fromkeys(profile, ""), "profile_ms": 6}}))
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
    store.claim("one", 1)
    store.claim("one", 1)
    with pytest.raises(HistoryError, match="Kafka cluster one, this is two"):
        store.claim("two", 1)


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


def damage(path, kept):
    """Have noise in a database file, behind its first pages."""
    for left in path.parent.glob(f"{path.name}-*"):
        left.unlink()
    whole = path.read_bytes()
    path.write_bytes(whole[: kept * 4096] + b"\xa5" * (len(whole) - kept * 4096))


@of_a_file
@pytest.mark.parametrize("kept", [0, 2], ids=["no database", "damaged pages"])
@pytest.mark.parametrize("error", [HistoryError, DependencyError])
def test_a_damaged_database_is_a_sentence_without_values(store, database, tmp_path, kept, error):
    named = {"seldom-seen-name": activity(1, 5)}
    store.commit(SinkCommit({}, {SOURCE: 1}, [file(1)], named))
    database.close()
    path = tmp_path / "new" / "folder" / "tidegate.db"
    damage(path, kept)
    read = SinkStore(Database(f"sqlite:///{path}", damaged=error))
    with pytest.raises(error, match="is damaged, or no database") as refused:
        read.commit(SinkCommit({SOURCE: 1}, {SOURCE: 2}, [file(2)], named))
    assert "seldom-seen-name" not in str(refused.value)
    assert refused.value.__suppress_context__
    with pytest.raises(error, match="is damaged"):
        read.files()


@of_a_file
def test_the_sink_ends_for_a_damaged_database_and_does_not_wait_for_it(database, tmp_path):
    database.close()
    path = tmp_path / "new" / "folder" / "tidegate.db"
    damage(path, 0)
    with pytest.raises(HistoryError, match="is damaged"):
        Database(f"sqlite:///{path}").migrate()
    with pytest.raises(HistoryError, match="is damaged"):
        Database(f"sqlite:///{path}").scrub()


def test_what_is_wrong_with_a_statement_is_no_damage(database):
    row = {"name": "cluster", "value": "one"}
    with pytest.raises(sa.exc.IntegrityError), database.begin() as connection:
        connection.execute(sa.insert(SINK_META), [row, row])


CHURN = {"churn_probability": 0.5, "churn_band": "low", "churn_as_of_ms": 900, "value_at_risk": 1.0}
PROFILE = {"country": "FR", "segment": "", "opened_on": "", "profile_ms": 900}


def erase(until_ms, replaced, activity=None, **more):
    return SinkCommit(
        {SOURCE: 5},
        {SOURCE: 6},
        activity=activity or {},
        erased={"c-1": until_ms},
        replaced=replaced,
        **more,
    )


@pytest.fixture
def two_customers(store):
    rows = {"c-1": activity(4, 1000), "c-2": activity(1, 900)}
    store.commit(
        SinkCommit({}, {SOURCE: 5}, [file(1), file(2), file(3)], rows, {"c-1": CHURN}, {"c-1": PROFILE})
    )
    return store


def test_an_erasure_takes_the_customer_and_lets_go_of_their_files_at_once(two_customers, database):
    store = two_customers
    others = customers(database)["c-2"]
    assert store.replace([file(1)], file(5))
    store.commit(erase(2000, {file(2): file(4), file(3): None}))
    assert store.files() == [file(4), file(5)]
    assert customers(database) == {"c-2": others}
    # The file that was merged before held the rows as well.
    assert set(store.retired(before_ms=2)) == {file(n).path for n in (1, 2, 3)}
    assert store.erased() == {erased_name("c-1"): 2000}


def test_a_customer_who_came_back_after_the_request_keeps_what_is_new(two_customers, database):
    two_customers.commit(erase(899, {}, {"c-1": activity(1, 1000)}))
    row = customers(database)["c-1"]
    assert (row.transactions, row.churn_probability, row.country) == (1, 0.5, "FR")


def test_what_is_older_than_the_request_does_not_stay_beside_what_is_new(two_customers, database):
    two_customers.commit(erase(900, {}, {"c-1": activity(1, 1000)}))
    row = customers(database)["c-1"]
    assert (row.transactions, row.churn_probability, row.churn_band, row.country) == (1, -1, "", "")


def test_a_churn_score_that_was_under_way_does_not_bring_an_erased_customer_back(two_customers, database):
    late = {"c-1": CHURN | {"churn_as_of_ms": 2001}}
    two_customers.commit(erase(2000, {}))
    two_customers.commit(SinkCommit({SOURCE: 6}, {SOURCE: 7}, churn=late, doubtful=["c-1"]))
    assert set(customers(database)) == {"c-2"}
    new = {"c-1": activity(1, 3000)}
    two_customers.commit(SinkCommit({SOURCE: 7}, {SOURCE: 8}, (), new, late, doubtful=["c-1"]))
    assert customers(database)["c-1"].churn_probability == 0.5


def test_an_erasure_is_applied_whole_or_not_at_all(two_customers, database):
    before = customers(database)
    # Another sink has merged the file meanwhile.
    assert two_customers.replace([file(2)], file(6))
    with pytest.raises(SinkFenced, match="merges files"):
        two_customers.commit(erase(2000, {file(2): file(4)}))
    assert (customers(database), two_customers.erased()) == (before, {})
    assert two_customers.offsets() == {SOURCE: 5}


def test_an_erasure_whose_answer_was_lost_is_not_applied_again(two_customers, database):
    commit = erase(2000, {file(2): file(4)})
    two_customers.commit(commit)
    two_customers.commit(commit)
    assert two_customers.files() == [file(1), file(3), file(4)]


@of_a_file
def test_an_erased_customer_is_not_to_be_found_in_the_database_files(two_customers, database, tmp_path):
    named = {"seldom-seen-name": activity(1, 5)}
    two_customers.commit(SinkCommit({SOURCE: 5}, {SOURCE: 6}, (), named))
    stored = lambda: b"".join(p.read_bytes() for p in tmp_path.rglob("tidegate.db*"))  # noqa: E731
    assert b"seldom-seen-name" in stored()
    two_customers.commit(SinkCommit({SOURCE: 6}, {SOURCE: 7}, erased={"seldom-seen-name": 9}))
    assert database.scrub()
    assert b"seldom-seen-name" not in stored()


def test_a_customer_whose_id_no_database_takes_is_left_out_of_the_index(store, database):
    rows = {"c\0": activity(1, 5), "c-1": activity(1, 5)}
    store.commit(SinkCommit({}, {SOURCE: 1}, [file(1)], rows))
    store.commit(SinkCommit({SOURCE: 1}, {SOURCE: 2}, erased={"c\0": 9}, doubtful=["c\0"]))
    assert set(customers(database)) == {"c-1"}


def test_the_newest_records_are_known_by_digest_of_their_transactions(store):
    store.claim("a cluster", 1)
    store.commit(SinkCommit({}, {SOURCE: 5}, newest={SOURCE: (3, "t-3"), SCORES: (7, "t-3")}))
    store.commit(SinkCommit({SOURCE: 5}, {SOURCE: 9}, newest={SOURCE: (8, "t-8")}))
    assert store.newest() == {SOURCE: (8, record_name("t-8")), SCORES: (7, record_name("t-3"))}
    assert "t-8" not in str(store.newest())


def test_the_folders_mark_is_kept(store):
    assert store.mark() is None
    store.set_mark("a-mark")
    assert store.mark() == "a-mark"
