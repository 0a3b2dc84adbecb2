"""A real receiver of OTLP over HTTP, in protobuf and in JSON: it parses what exporters send, and keeps the spans."""

import base64
import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OTLPReceiver:
    """Listens on a free port of loopback, from `__enter__` to `__exit__`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                kind = self.headers["content-type"]
                if self.path != "/v1/traces" or kind not in ("application/x-protobuf", "application/json"):
                    self.send_error(404)
                    return
                message = ExportTraceServiceRequest()
                if kind == "application/json":
                    json_format.Parse(_with_base64_ids(body), message, ignore_unknown_fields=True)
                else:
                    message.ParseFromString(body)
                receiver._add(message)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _add(self, message: ExportTraceServiceRequest) -> None:
        for resource_spans in message.resource_spans:
            self.resource = attributes(resource_spans.resource)
            for scope_spans in resource_spans.scope_spans:
                self.spans.extend(scope_spans.spans)

    def wait_for(self, count: int, seconds: float = 30.0) -> list[Span]:
        """Return the spans, ordered by their start, once there are `count`. Blocks. Raises `TimeoutError`."""
        deadline = time.monotonic() + seconds
        while len(self.spans) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.spans)} of {count} spans came")
            time.sleep(0.01)
        return sorted(self.spans, key=lambda span: span.start_time_unix_nano)

    def __enter__(self) -> "OTLPReceiver":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _with_base64_ids(body: bytes) -> str:
    """Return OTLP's JSON as protobuf's: OTLP writes ids in hexadecimal where protobuf writes bytes in base64."""

    def convert(fields: dict[str, Any]) -> dict[str, Any]:
        ids = ("traceId", "spanId", "parentSpanId")
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ids else v for k, v in fields.items()}

    return json.dumps(json.loads(body, object_hook=convert))


def attributes(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span or a resource as Python values."""
    return {pair.key: _value(pair.value) for pair in holder.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
