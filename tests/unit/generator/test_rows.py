import numpy as np

from generator.rows import FIELDS, IS_CARD, IS_CREDIT, Agenda, Kind, make_rows
from generator.settings import DAY_MS


def test_an_agenda_gives_each_row_on_its_day_and_once():
    agenda = Agenda(start_ms=1_000 * DAY_MS, days=3)
    times = (1_000 + np.array([0, 2, 1, 0])) * DAY_MS + 5
    agenda.add(make_rows(np.arange(4), times, 1, Kind.POS))
    assert agenda.take(0)["customer"].tolist() == [0, 3]
    assert agenda.take(0).size == 0
    assert len(agenda) == 2


def test_an_agenda_forgets_what_lies_after_the_span():
    agenda = Agenda(start_ms=0, days=3)
    agenda.add(make_rows(0, np.array([3 * DAY_MS, 90 * DAY_MS]), 1, Kind.POS))
    assert len(agenda) == 0


def test_every_kind_says_what_it_is():
    assert FIELDS.keys() == set(Kind)
    assert IS_CREDIT[[Kind.SALARY, Kind.REFUND, Kind.TRANSFER_IN, Kind.CASH_DEPOSIT]].all()
    assert not IS_CREDIT[IS_CARD].any()
