"""What `tidegate doctor` says of event log and index, on databases that a sink's own code wrote."""

import pytest

from infra import event_mark
from infra.checks import Finding, Status
from infra.database import SINK_OFFSETS
from infra.event_files import EventFile
from infra.sink_commit import SinkCommit
from infra.sink_inspection import check_sink, inspect_sink
from infra.sink_store import SinkStore

SCORES = ("scores.fraud", 0)


def url_of(database):
    return database.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "events"


@pytest.fixture
def store(database, folder):
    """After one flush: one file, twenty scores."""
    store = SinkStore(database)
    store.claim("cluster-1", 1)
    event_mark.claim(folder, store, [])
    (folder / "day=x").mkdir(parents=True)
    (folder / "day=x" / "1.parquet").write_bytes(b"rows")
    store.commit(SinkCommit({}, {SCORES: 20}, [EventFile("day=x/1.parquet", 100, 20, 4, 1, 2, 3)]))
    return store


@pytest.fixture
def examined(database, folder, store):
    def examine(cluster="cluster-1", start=0, end=25, partitions=1):
        facts = inspect_sink(url_of(database), folder, timeout_s=5)
        assert not isinstance(facts, Finding), facts
        return {f.check: f for f in check_sink(facts, cluster, {SCORES: (start, end)}, partitions)}

    return examine


def test_a_healthy_one_has_no_finding_and_says_how_far_it_is(examined):
    found = examined()
    assert {f.status for f in found.values()} == {Status.OK}
    assert found["event_log.folder"].detail == "1 files"
    assert found["event_log.offsets"].detail == "5 records of scores.fraud behind"


def test_a_partition_that_was_never_read_is_behind_by_all_of_it(examined, database, folder):
    facts = inspect_sink(url_of(database), folder, timeout_s=5)
    assert not isinstance(facts, Finding)
    bounds = {SCORES: (0, 20), ("scores.fraud", 1): (10, 17)}
    (offsets,) = [f for f in check_sink(facts, "cluster-1", bounds) if f.check == "event_log.offsets"]
    assert offsets.detail == "7 records of scores.fraud behind"


def test_a_log_that_was_cut_behind_what_is_stored_is_an_error(examined):
    assert examined(start=21)["event_log.offsets"].status is Status.ERROR
    assert examined(start=20)["event_log.offsets"].status is Status.OK


def test_another_cluster_is_an_error(examined):
    assert "cluster-1" in examined(cluster="cluster-2")["event_log.cluster"].detail


def test_added_partitions_are_an_error_once_something_was_written(examined, database, folder):
    found = examined(partitions=2)["event_log.cluster"]
    assert "from 1 partitions, the topics now have 2" in found.detail
    with database.begin() as connection:
        connection.execute(SINK_OFFSETS.delete())
    assert "event_log.cluster" not in examined(partitions=2)


def test_without_kafka_folder_and_database_are_looked_at_all_the_same(examined):
    found = examined(cluster=None)
    assert found["event_log.offsets"].status is Status.SKIPPED
    assert found["event_log.folder"].status is Status.OK


def test_a_file_that_is_not_there_is_an_error_with_its_name(examined, folder):
    (folder / "day=x" / "1.parquet").unlink()
    found = examined()["event_log.folder"]
    assert (found.status, "day=x/1.parquet" in found.detail) == (Status.ERROR, True)


def test_a_folder_that_is_not_mounted_is_an_error(examined, folder):
    (folder / event_mark.NAME).unlink()
    assert examined()["event_log.folder"].status is Status.ERROR


def test_a_database_without_a_sink_is_said_to_have_none(tmp_path):
    found = inspect_sink(f"sqlite:///{tmp_path}/none.db", tmp_path, timeout_s=1)
    assert isinstance(found, Finding)
    assert found.status is Status.SKIPPED


@pytest.mark.parametrize("url", ["mysql://u:hidden@h/d", "postgresql+psycopg://u:hidden@127.0.0.1:1/d"])
def test_a_database_that_cannot_be_asked_is_an_error_without_its_password(tmp_path, url):
    found = inspect_sink(url, tmp_path, timeout_s=1)
    assert isinstance(found, Finding)
    assert found.status is Status.ERROR
    assert "hidden" not in f"{found.detail}{found.advice}"
