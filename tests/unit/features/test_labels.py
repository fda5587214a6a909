from collections.abc import Callable

import numpy as np
import pytest

from features import labels
from features.arena import HistoryArena
from features.codec import History
from features.definitions import DAY_MS
from features.labels import ALREADY_THERE, PUT, UNKNOWN_TRANSACTION, put_labels
from features.record import LABEL_KIND, RECORD, Records

T0 = 1_767_225_600_000


def _plain(kernel: Callable[..., object]) -> Callable[..., object]:
    def call(*given: object) -> object:
        return kernel(*(np.asarray(g) if isinstance(g, np.ndarray) else g for g in given))

    return call


@pytest.fixture(params=["compiled", "as written"], autouse=True)
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "as written":
        plain = labels._put.py_func

        def put(pool: Records, start: object, length: object, found: Records, *more: object) -> None:
            # Plain Python reads a record's fields by name only from this view.
            plain(pool.view(np.recarray), start, length, found.view(np.recarray), *more)

        for name in ("find_transaction", "insert_record", "newest_arrival", "retained_from"):
            monkeypatch.setattr(labels, name, _plain(getattr(labels, name)))
        monkeypatch.setattr(labels, "_put", put)


def records(*rows: tuple[int, int], label: int = 0) -> Records:
    """Records of `(day, transaction)`; labels where `label` says which."""
    made = np.zeros(len(rows), dtype=RECORD)
    made["time_ms"] = [T0 + day * DAY_MS for day, _ in rows]
    made["transaction"] = [transaction for _, transaction in rows]
    made["kind"], made["label"] = LABEL_KIND if label else 0, label
    return made


def arena_with(*rows: tuple[int, int]) -> HistoryArena:
    arena = HistoryArena()
    arena.put("c", History(History.empty().totals, records(*rows)))
    return arena


def put(arena: HistoryArena, found: Records, about_account: bool = False) -> list[int]:
    slots = np.full(len(found), arena.slot("c"))
    return put_labels(arena, slots, found, np.full(len(found), about_account)).tolist()


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_there_already_does_not_depend_on_when_the_history_was_last_cut_down(packed: bool) -> None:
    arena = arena_with((0, 1), (200, 2))
    assert put(arena, records((1, 0), label=3), about_account=True) == [PUT]
    if packed:
        arena.prune(arena.slot("c"))
    assert (len(arena.records(arena.slot("c"))) == 1) is packed
    assert put(arena, records((199, 0), label=3), about_account=True) == [PUT]
    assert put(arena, records((199, 0), label=3), about_account=True) == [ALREADY_THERE]


def test_label_stands_where_its_time_belongs() -> None:
    arena = arena_with((0, 1), (5, 2))
    assert put(arena, records((3, 1), label=1)) == [PUT]
    history = arena.records(arena.slot("c"))
    assert history["kind"].tolist() == [0, LABEL_KIND, 0]
    assert history["time_ms"].tolist() == [T0, T0 + 3 * DAY_MS, T0 + 5 * DAY_MS]


def test_same_finding_twice_counts_once_and_another_finding_counts_too() -> None:
    arena = arena_with((0, 1))
    assert put(arena, np.concatenate([records((1, 1), (2, 1), label=1), records((3, 1), label=2)])) == [
        PUT,
        ALREADY_THERE,
        PUT,
    ]


@pytest.mark.parametrize("known", [[(0, 1)], [(0, 2), (121, 1)], []])
def test_label_of_a_transaction_that_is_not_kept_is_unknown(known: list[tuple[int, int]]) -> None:
    arena = arena_with(*known)
    before = arena.records(arena.slot("c")).tobytes()
    assert put(arena, records((122, 2), label=1)) == [UNKNOWN_TRANSACTION]
    assert arena.records(arena.slot("c")).tobytes() == before


def test_label_about_the_account_needs_no_transaction() -> None:
    arena = arena_with((0, 1))
    assert put(arena, records((1, 0), label=3), about_account=True) == [PUT]


def test_many_labels_find_room() -> None:
    days = [(day, day + 1) for day in range(30)]
    arena = arena_with(*days)
    assert put(arena, records(*days, label=2)) == [PUT] * 30
    history = arena.records(arena.slot("c"))
    assert len(history) == 60
    assert (np.diff(history["time_ms"]) >= 0).all()
