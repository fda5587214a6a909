import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from infra.spans import score_span
from schemas.errors import ConfigError

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exported():
    return InMemorySpanExporter()


@pytest.fixture
def span(exported):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return score_span("worker", provider)


def test_score_gets_a_span_under_that_of_its_transaction(span, exported):
    ((name, value),) = span((("traceparent", f"00-{TRACE}-{SPAN}-01".encode()),))
    (made,) = exported.get_finished_spans()
    assert name == "traceparent"
    assert f"{made.context.trace_id:032x}" == TRACE
    assert f"{made.parent.span_id:016x}" == SPAN
    assert value.decode() == f"00-{TRACE}-{made.context.span_id:016x}-01"


def test_transaction_without_or_with_an_unsampled_trace_makes_none(span, exported):
    unsampled = (("traceparent", f"00-{TRACE}-{SPAN}-00".encode()),)
    assert span(()) == ()
    assert span(unsampled) == unsampled
    assert exported.get_finished_spans() == ()


def test_nonsense_is_passed_on_as_it_is(span, exported):
    assert span((("traceparent", b"\xff nonsense"),)) == (("traceparent", b"\xff nonsense"),)
    assert exported.get_finished_spans() == ()


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(ConfigError, match=r"tidegate\[trace\]"):
        score_span("worker")
