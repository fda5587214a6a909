import json
import logging
import os
import signal

import pytest
import structlog

from infra.logs import configure, level_by_signal


@pytest.fixture(autouse=True)
def _as_before():
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_change_the_level_of_a_running_process(capsys):
    log = structlog.get_logger()
    configure("info", "json")
    level_by_signal("info", "json")
    log.debug("first")
    os.kill(os.getpid(), signal.SIGUSR1)
    log.debug("second")
    os.kill(os.getpid(), signal.SIGUSR2)
    log.debug("third")
    log.info("fourth")
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in said] == ["log level changed", "second", "log level changed", "fourth"]
