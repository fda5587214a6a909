"""Totals over files of an event log that holds a few rows."""

import json
from pathlib import Path

import orjson
import pytest

from api.ports import EventFilter, Page
from infra import event_queries, event_totals
from infra.database import Database
from infra.event_files import EventFiles
from infra.event_queries import EventQueries
from infra.sink_store import SinkCommit, SinkStore
from schemas.errors import DependencyError, QuestionError, SlowAnswerError

DAY_MS = 86_400_000
DAY = 20_000
EVERYTHING = EventFilter()


def row(number, **changes):
    """A row as `infra.event_files.event_row` makes it."""
    return {
        "transaction_id": f"t-{number}",
        "customer_id": f"c-{number % 3}",
        "event_time": DAY * DAY_MS + number,
        "amount_minor": 100,
        "amount": 1.0,
        "currency": "EUR",
        "credit": False,
        "channel": "pos",
        "merchant_category": f"{number:04}",
        "score": 0.5,
        "decision": "allow",
        "flags": [],
        "reasons": "[]",
        "model_version": "v1",
        "scored_at": DAY * DAY_MS + number + 50,
        "partition": 0,
        "offset": number,
        **changes,
    }


class Log:
    """An event log that rows are added to, as the sink adds them."""

    def __init__(self, folder):
        self.database = Database(f"sqlite:///{folder}/index.db")
        self.database.migrate()
        self.files, self.folder, self.next = EventFiles(folder / "events"), folder, 0

    def add(self, *rows):
        source = ("transactions", 0)
        start = {source: self.next} if self.next else {}
        self.next += len(rows)
        SinkStore(self.database).commit(SinkCommit(start, {source: self.next}, self.files.write(rows)))

    def queries(self, **options):
        return EventQueries(self.database, self.folder / "events", Page, **options)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


async def test_groups_are_in_the_order_of_what_was_asked_and_unknown_comes_last(log):
    log.add(row(1), row(2, channel=None), row(3, currency="USD", decision="block", score=1.0), row(4))
    found = orjson.loads(await log.queries().totals(["channel"], EVERYTHING))
    assert found == [
        {
            "keys": {"channel": "pos"},
            "currency": "EUR",
            "transactions": 2,
            "customers": 1,
            "amount_minor": 200,
            "credit_minor": 0,
            "flagged": 0,
            "blocked": 0,
            "score_mean": 0.5,
        },
        {
            "keys": {"channel": "pos"},
            "currency": "USD",
            "transactions": 1,
            "customers": 1,
            "amount_minor": 100,
            "credit_minor": 0,
            "flagged": 1,
            "blocked": 1,
            "score_mean": 1.0,
        },
        {
            "keys": {"channel": None},
            "currency": "EUR",
            "transactions": 1,
            "customers": 1,
            "amount_minor": 100,
            "credit_minor": 0,
            "flagged": 0,
            "blocked": 0,
            "score_mean": 0.5,
        },
    ]


async def test_more_groups_than_an_answer_has_are_refused_with_what_to_ask_instead(log, monkeypatch):
    monkeypatch.setattr(event_totals, "MOST_GROUPS", 3)
    log.add(*(row(number) for number in range(4)))
    queries = log.queries()
    for _ in range(2):
        with pytest.raises(QuestionError, match="ask by fewer properties or for fewer days"):
            await queries.totals(["merchant_category"], EVERYTHING)
    three = EventFilter(to_ms=DAY * DAY_MS + 3)
    assert len(orjson.loads(await queries.totals(["merchant_category"], three))) == 3


async def test_credits_are_part_of_the_sum_and_are_told_apart(log):
    log.add(row(1, amount_minor=700), row(2, amount_minor=50, credit=True))
    (group,) = orjson.loads(await log.queries().totals(["day"], EVERYTHING))
    assert (group["amount_minor"], group["credit_minor"]) == (750, 50)


async def test_a_sum_is_exact_where_it_has_more_than_64_bits(log):
    largest = 2**63 - 1
    log.add(*(row(number, currency="VND", amount_minor=largest) for number in range(3)))
    (group,) = json.loads(await log.queries().totals(["decision"], EVERYTHING))
    assert group["amount_minor"] == 3 * largest


async def test_a_damaged_file_is_a_dependency_that_is_away(log):
    log.add(row(1))
    (file,) = SinkStore(log.database).files()
    (log.folder / "events" / file.path).write_bytes(b"nothing that Parquet is")
    with pytest.raises(DependencyError, match="a file of the event log cannot be read") as failed:
        await log.queries().totals(["day"], EVERYTHING)
    # Whoever reads the log is to find it.
    assert Path(file.path).name in str(failed.value)


async def test_whatever_else_duckdb_fails_of_is_a_dependency_that_is_away(log, monkeypatch):
    monkeypatch.setitem(event_totals.GROUPS, "channel", "cast(transaction_id as integer)")
    log.add(row(1))
    with pytest.raises(DependencyError, match="ConversionException") as failed:
        await log.queries().totals(["channel"], EVERYTHING)
    assert "t-1" not in str(failed.value)


async def test_answers_over_older_lists_of_files_are_not_kept(log, monkeypatch):
    monkeypatch.setattr(event_queries, "_FILES_S", 0.0)
    queries, counts = log.queries(), []
    for number in range(4):
        log.add(row(number))
        (group,) = orjson.loads(await queries.totals(["day"], EVERYTHING))
        counts.append(group["transactions"])
    assert counts == [1, 2, 3, 4]
    assert len(queries._answers._found) == 1


async def test_files_of_days_that_are_not_asked_for_change_no_kept_answer(log, monkeypatch):
    monkeypatch.setattr(event_queries, "_FILES_S", 0.0)
    log.add(row(1))
    queries, that_day = log.queries(), EventFilter(to_ms=(DAY + 1) * DAY_MS)
    before = await queries.totals(["day"], that_day)
    log.add(row(1, event_time=(DAY + 2) * DAY_MS))
    assert await queries.totals(["day"], that_day) is before


async def test_the_newest_event_and_score_are_of_what_is_stored_and_a_merge_makes_neither_newer(
    log, monkeypatch
):
    monkeypatch.setattr(event_queries, "_FILES_S", 0.0)
    queries, start = log.queries(), DAY * DAY_MS
    assert await queries.newest() == (None, None)
    log.add(row(1, event_time=start + 9, scored_at=start + 20), row(2, scored_at=start + 7))
    log.add(row(3, event_time=start + 4, scored_at=start + DAY_MS))
    assert await queries.newest() == (start + 9, start + DAY_MS)
    store = SinkStore(log.database)
    old = store.files()
    assert store.replace(old, log.files.merge(old))
    assert await queries.newest() == (start + 9, start + DAY_MS)


async def test_an_answer_that_takes_too_long_says_what_to_ask_instead(log):
    log.add(row(1))
    # Its turn never comes.
    with pytest.raises(SlowAnswerError, match="ask for fewer days"):
        await log.queries(concurrent=0, timeout_s=1.0).totals(["day"], EVERYTHING)
