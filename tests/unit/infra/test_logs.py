import io
import json
import logging
import os
import signal
import sys

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


def test_a_line_is_one_write_so_that_threads_do_not_share_it(monkeypatch):
    writes = []

    class Recorded(io.StringIO):
        def write(self, text):
            writes.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Recorded())
    configure("info", "json")
    structlog.get_logger().info("of the program")
    logging.getLogger("library").warning("of a library")
    assert [json.loads(text)["event"] for text in writes] == ["of the program", "of a library"]
    assert all(text.endswith("\n") for text in writes)
