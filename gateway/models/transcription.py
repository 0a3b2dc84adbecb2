"""Transcribes audio in chat requests with a speech model of the catalog."""

from collections.abc import Awaitable, Callable

from gateway.errors import GatewayError
from gateway.models.catalog import Catalog
from gateway.observability.telemetry import Trace
from gateway.operations import transcribe
from gateway.operations.transcribe import Transcribe


def find_transcriber(catalog: Catalog, trace: Trace) -> Callable[[bytes], Awaitable[str]] | None:
    """Return a function that transcribes audio for the request of `trace`; None where no model transcribes.

    The function takes mono float32 samples, 16,000 a second, and raises a `GatewayError` where the model fails.
    """
    speech = catalog.first_model_for(Transcribe)
    if speech is None:
        return None

    async def transcribe_samples(samples: bytes) -> str:
        request = Transcribe(model=speech.name, audio=samples)
        try:
            return await transcribe.gather(catalog.run(speech, request, trace))
        except GatewayError as error:
            error.param = None  # the field of another route
            raise

    return transcribe_samples
