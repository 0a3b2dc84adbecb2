"""POST /{platform}/v1/audio/transcriptions and /translations: at once, as a stream, or as a task.

The all-platform document has no sound. The routes are OpenAI's, and the tasks are like those of its images.
"""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from gateway.dialects.openai.wire import transcript_answers, transcription_models, transcriptions
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.transcriptions import (
    CreateTranscriptionRequest,
    CreateTranslationRequest,
)
from gateway.dialects.platform import access, tasks
from gateway.dialects.platform.response_models import TranscriptionTask
from gateway.errors import InvalidRequest, Overloaded
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.transcribe import Transcribe
from gateway.operations.transcript import SpeechTask

router = APIRouter(
    route_class=route_class(OPENAI_ERRORS, recordings=True, authorize=access.authorize), tags=["Platforms"]
)

_ASYNC = Field(alias="async", description="Answer at once with a task, and transcribe in the background.")


class CreatePlatformTranscriptionRequest(CreateTranscriptionRequest):
    """The body of a transcription: OpenAI's, with `async` and `webhook_url`."""

    model: str
    async_: Annotated[bool | None, _ASYNC] = None
    webhook_url: tasks.WebhookUrl = None


class CreatePlatformTranslationRequest(CreateTranslationRequest):
    """The body of a translation: OpenAI's, with `async` and `webhook_url`."""

    model: str
    async_: Annotated[bool | None, _ASYNC] = None
    webhook_url: tasks.WebhookUrl = None


_RESPONSES = transcript_answers.document_texts(
    OPENAI_DOCS.responses(
        transcription_models.Transcription | transcription_models.VerboseTranscription | TranscriptionTask,
        STORED_OUTPUT_FAILURES,
        description="The text, in the format of `response_format`; with `async`, the task that writes it.",
        example={"text": "What time is it?", "usage": {"type": "duration", "seconds": 1.2}},
        event=transcription_models.TranscriptTextDeltaEvent,
        event_example={"type": "transcript.text.delta", "delta": "What time is it?"},
        more_events=(transcription_models.TranscriptTextDoneEvent,),
    )
)


@router.post(
    "/{platform}/v1/audio/transcriptions",
    summary="Transcribe a recording",
    responses=_RESPONSES,
    openapi_extra=transcriptions.form_request_body(CreatePlatformTranscriptionRequest),
)
async def create_transcription(
    platform: str, body: CreatePlatformTranscriptionRequest, request: Request, in_query: tasks.AsyncQuery = None
) -> Response:
    """Return the text of a recording, in its own language."""
    return await _answer(request, body, body.model, "transcribe", later=bool(body.async_ or in_query))


@router.post(
    "/{platform}/v1/audio/translations",
    summary="Translate a recording",
    responses=_RESPONSES,
    openapi_extra=transcriptions.form_request_body(CreatePlatformTranslationRequest),
)
async def create_translation(
    platform: str, body: CreatePlatformTranslationRequest, request: Request, in_query: tasks.AsyncQuery = None
) -> Response:
    """Return the text of a recording in English."""
    return await _answer(request, body, body.model, "translate", later=bool(body.async_ or in_query))


async def _answer(
    request: Request,
    body: CreatePlatformTranscriptionRequest | CreatePlatformTranslationRequest,
    name: str,
    task: SpeechTask,
    *,
    later: bool,
) -> Response:
    if not later:
        tasks.reject_webhook(body.webhook_url)
    if later and body.stream:
        raise InvalidRequest("A task has no stream: omit 'stream' or 'async'.", param="stream")
    model = _find_model(request, name, later=later)
    operation = await transcriptions.parse_request(body, task, model.name if model else name, request)
    if later or model is None:
        return await tasks.submit(request, operation, body.webhook_url)
    catalog: Catalog = request.app.state.catalog
    events = catalog.run(model, operation, request.state.trace)
    return await transcript_answers.answer(request, body, operation, events, success={})


def _find_model(request: Request, name: str, *, later: bool) -> Model | None:
    """Return the model; None where its server is unavailable and the request is `later`, as a task can wait for it.

    Raises as `access.find_model` does.
    """
    try:
        return access.find_model(request, name, Transcribe)
    except Overloaded:
        if later:
            return None
        raise
