from schemas.errors import (
    ConfigError,
    DependencyError,
    EventError,
    HistoryError,
    ModelError,
    TidegateError,
)


def test_every_error_has_one_root():
    for error in (ConfigError("x"), DependencyError("x"), HistoryError("x"), ModelError("x")):
        assert isinstance(error, TidegateError)
    assert isinstance(EventError("empty", "x"), TidegateError)


def test_event_error_says_its_detail_and_carries_its_reason():
    refused = EventError("empty", "nothing there")

    assert (refused.reason, str(refused)) == ("empty", "nothing there")
