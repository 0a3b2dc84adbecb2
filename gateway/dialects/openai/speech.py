"""POST /v1/audio/speech: https://platform.openai.com/docs/api-reference/audio/createSpeech, and GET /v1/audio/voices.

Seed: the AITRE document, 音频接口(Audio), which names the three routes of sound without describing them.
"""

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai.wire import speech, voices
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.speech import CreateSpeechRequest
from gateway.dialects.openai.wire.speech_models import SPEECH_RESPONSES, VOICES_RESPONSES
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.operations.speak import Speak

router = APIRouter(route_class=route_class(OPENAI_ERRORS), tags=["Audio"])


@router.post("/v1/audio/speech", summary="Speak a text", response_class=Response, responses=SPEECH_RESPONSES)
async def create_speech(body: CreateSpeechRequest, request: Request) -> Response:
    """Speak `input`, as a file that grows while the model speaks, or as server-sent events."""
    catalog: Catalog = request.app.state.catalog
    return await speech.respond(body, catalog.get(body.model, Speak), request)


@router.get("/v1/audio/voices", summary="List voices", responses=VOICES_RESPONSES)
async def list_voices(request: Request) -> Response:
    """Return the voices of all models that speak."""
    catalog: Catalog = request.app.state.catalog
    return Response(voices.render_voices(catalog.models()), media_type="application/json")
