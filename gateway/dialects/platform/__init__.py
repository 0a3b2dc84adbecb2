"""The platform document's API, `/{platform}/v1/...`: OpenAI's requests, answers of its own, and tasks.

A platform is a view of the models with a name and keys of its own (setting `platforms`).
"""

from gateway.dialects.dialect import Dialect
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.platform import (
    access,
    chat,
    face_swaps,
    images,
    response_models,
    speech,
    tasks,
    transcription_tasks,
    transcriptions,
    upscales,
    videos,
)

DIALECT = Dialect(
    name="platform",
    prefixes=("/{platform}/v1",),
    routers=(
        chat.router,
        images.router,
        upscales.router,
        speech.router,
        tasks.router,
        transcriptions.router,
        transcription_tasks.router,
        videos.router,
        face_swaps.router,
    ),
    errors=OPENAI_ERRORS,
    stream_events=response_models.STREAM_EVENTS,
    requires_key=access.any_platform_requires_key,
)
