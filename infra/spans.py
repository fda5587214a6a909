"""Spans by OpenTelemetry, where its packages are installed and it is asked for.

Where spans go is said by OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.
"""

from collections.abc import Callable
from typing import Any

from schemas.errors import ConfigError

Headers = tuple[tuple[str, bytes], ...]


def score_span(service: str, provider: Any = None) -> Callable[[Headers], Headers]:
    """A function that makes a span for a score under the span of its transaction.

    Events without a trace context, or of one that is not sampled, cost nothing.

    Args:
        service: Name of this service.
        provider: OpenTelemetry's tracer provider; `None` makes one that exports.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.trace import SpanKind, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ModuleNotFoundError as error:
        raise _not_installed() from error
    tracer = (provider or _exporting(service)).get_tracer("tidegate")
    propagator = TraceContextTextMapPropagator()

    def span(headers: Headers) -> Headers:
        if not headers:
            return headers
        context = propagator.extract({name: value.decode("latin-1") for name, value in headers})
        if not get_current_span(context).get_span_context().trace_flags.sampled:
            return headers
        carrier: dict[str, str] = {}
        with tracer.start_as_current_span("score transaction", context, SpanKind.CONSUMER):
            propagator.inject(carrier)
        return tuple((name, value.encode("latin-1")) for name, value in carrier.items())

    return span


def trace_requests(app: Any, service: str) -> None:
    """Make a span for each request of a FastAPI application.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    except ModuleNotFoundError as error:
        raise _not_installed() from error
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=_exporting(service),
        excluded_urls="live,ready,metrics",
        exclude_spans=["receive", "send"],
    )


def _exporting(service: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise _not_installed() from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _not_installed() -> ConfigError:
    return ConfigError(
        "TIDEGATE_TRACING is set, but OpenTelemetry is not installed: pip install 'tidegate[trace]'"
    )
