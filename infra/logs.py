"""Logs: structured, JSON unless a person is watching."""

import logging
import signal
import sys

import structlog


def level_by_signal(level: str, style: str) -> None:
    """SIGUSR1 shows everything, SIGUSR2 as much as configured: in a running process, from outside."""
    for number, chosen in ((signal.SIGUSR1, "debug"), (signal.SIGUSR2, level)):
        signal.signal(number, lambda *_, chosen=chosen: _change(chosen, style))


def _change(level: str, style: str) -> None:
    configure(level, style)
    structlog.get_logger().warning("log level changed", to=level)


def configure(level: str = "info", style: str = "auto") -> None:
    """Set up structlog and send the standard library's warnings through it.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `json`, `console`, or `auto`: console on a terminal.
    """
    threshold = getattr(logging, level.upper())
    readable = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        # Line and its end in one write: threads that log at once must not share a line.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(threshold, logging.WARNING))
