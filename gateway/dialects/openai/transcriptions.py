"""POST /v1/audio/transcriptions and /translations: https://platform.openai.com/docs/api-reference/audio

Seed: the AITRE document, 创建转录 and 创建翻译 of 音频接口(Audio).
"""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai.response_models import SUCCESS, SuccessFields
from gateway.dialects.openai.wire import transcript_answers, transcription_models, transcriptions
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.transcriptions import (
    CreateTranscriptionRequest,
    CreateTranslationRequest,
    SpeechFields,
)
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES, Responses
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.operations.transcribe import Transcribe
from gateway.operations.transcript import SpeechTask

router = APIRouter(route_class=route_class(OPENAI_ERRORS, recordings=True), tags=["Audio"])


class CreateTranscriptionResponse(transcription_models.Transcription, SuccessFields):
    """A transcription or translation in the format `json`."""


class CreateVerboseTranscriptionResponse(transcription_models.VerboseTranscription, SuccessFields):
    """A transcription or translation in the format `verbose_json`."""


def _responses(text: str) -> Responses:
    details = {"audio_tokens": 57, "text_tokens": 4}
    usage = {
        "type": "tokens",
        "input_tokens": 61,
        "input_token_details": details,
        "output_tokens": 9,
        "total_tokens": 70,
    }
    return transcript_answers.document_texts(
        OPENAI_DOCS.responses(
            CreateTranscriptionResponse | CreateVerboseTranscriptionResponse,
            STORED_OUTPUT_FAILURES,
            description="The text, in the format of `response_format`; with `stream`, events that add to it.",
            example={"text": text, "usage": usage, **SUCCESS},
            event=transcription_models.TranscriptTextDeltaEvent,
            event_example={"type": "transcript.text.delta", "delta": text},
            more_events=(transcription_models.TranscriptTextDoneEvent,),
        )
    )


@router.post(
    "/v1/audio/transcriptions",
    summary="Transcribe a recording",
    responses=_responses("What time is it?"),
    openapi_extra=transcriptions.form_request_body(CreateTranscriptionRequest),
)
async def create_transcription(body: CreateTranscriptionRequest, request: Request) -> Response:
    """Return the text of a recording, in its own language."""
    return await _answer(request, body, "transcribe")


@router.post(
    "/v1/audio/translations",
    summary="Translate a recording",
    responses=_responses("What time is it?"),
    openapi_extra=transcriptions.form_request_body(CreateTranslationRequest),
)
async def create_translation(body: CreateTranslationRequest, request: Request) -> Response:
    """Return the text of a recording in English."""
    return await _answer(request, body, "translate")


async def _answer(request: Request, body: SpeechFields, task: SpeechTask) -> Response:
    catalog: Catalog = request.app.state.catalog
    model = catalog.get_or_first(body.model, Transcribe, "No model transcribes speech.")
    operation = await transcriptions.parse_request(body, task, model.name, request)
    events = catalog.run(model, operation, request.state.trace)
    success: dict[str, Any] = SUCCESS
    return await transcript_answers.answer(request, body, operation, events, success=success)
