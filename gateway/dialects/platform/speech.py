"""POST /{platform}/v1/audio/speech and GET /{platform}/v1/audio/voices: OpenAI's, with a platform's models and keys."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai.wire import speech, voices
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.speech import CreateSpeechRequest
from gateway.dialects.openai.wire.speech_models import SPEECH_RESPONSES, platform_voices_responses
from gateway.dialects.platform import access
from gateway.http.routes import route_class
from gateway.operations.speak import Speak

router = APIRouter(route_class=route_class(OPENAI_ERRORS, authorize=access.authorize), tags=["Platforms"])


@router.post("/{platform}/v1/audio/speech", summary="Speak a text", response_class=Response, responses=SPEECH_RESPONSES)
async def create_speech(platform: str, body: CreateSpeechRequest, request: Request) -> Response:
    """Speak `input`, as a file that grows while the model speaks, or as server-sent events."""
    return await speech.respond(body, access.find_model(request, body.model, Speak), request)


@router.get("/{platform}/v1/audio/voices", summary="List voices", responses=platform_voices_responses())
async def list_voices(platform: str, request: Request) -> Response:
    """Return the voices of the platform's models that speak."""
    return Response(voices.render_voices(access.list_models(request)), media_type="application/json")
