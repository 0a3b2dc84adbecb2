import gc
import weakref

from gateway.errors import GatewayError
from gateway.observability.telemetry import Metrics, Trace


class Body:
    pass


def fail(trace: Trace) -> weakref.ref[Body]:
    body = Body()
    try:
        try:
            raise ValueError
        except ValueError as error:
            raise GatewayError("No.") from error
    except GatewayError as error:
        trace.record_failure(error)
    return weakref.ref(body)


def test_an_exception_holds_no_reference_to_the_request():
    trace = Trace(Metrics(), "r")
    gc.disable()
    try:
        assert fail(trace)() is None and trace.error is not None
    finally:
        gc.enable()
