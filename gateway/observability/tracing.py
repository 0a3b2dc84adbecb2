"""Traces for OpenTelemetry (`gateway.observability.spans`): whether the environment asks for them, and where they go.

Tracing is off, and costs nothing, unless `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set.
The SDK reads the other standard variables: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
`OTEL_EXPORTER_OTLP_HEADERS` and those of the batch processor.
"""

import logging
import os
import uuid
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.observability.spans import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class TracingError(Exception):
    """The environment asks for tracing that is not possible. The message says what to change."""


def check_environment() -> bool:
    """Return whether the environment asks for traces. Raises `TracingError` where they are not possible."""
    wants_none = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    wants_none |= os.environ.get("OTEL_TRACES_EXPORTER", "otlp").lower() == "none"
    if wants_none or not any(os.environ.get(name) for name in _ENDPOINTS):
        return False
    if (exporter := os.environ.get("OTEL_TRACES_EXPORTER", "otlp").lower()) != "otlp":
        raise TracingError(f"OTEL_TRACES_EXPORTER is {exporter!r}; the gateway has 'otlp' and 'none'.")
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise TracingError(f"{_PROTOCOLS[1]} is {protocol!r}; the gateway sends traces as 'http/protobuf' only.")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as error:
        raise TracingError(
            f"{_ENDPOINTS[1]} is set, but {error.name} is not installed: pip install 'tritonic[tracing]'."
        ) from None
    return True


def from_environment() -> "Tracing | None":
    """Return the tracing that the environment asks for; None where it asks for none. Raises `TracingError`."""
    if not check_environment():
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from gateway.observability.spans import Tracing

    # What the SDK says of a caller's headers would let callers fill the log.
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    own_version = version("tritonic")
    resource = Resource.create({"service.version": own_version, "service.instance.id": str(uuid.uuid4())})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "tritonic"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider.get_tracer("tritonic.gateway", own_version), provider.shutdown)
