"""OpenAI's API, https://platform.openai.com/docs/api-reference. Other dialects may import its bodies from `wire`.

A new group of routes is a module of this package with a `router`, and a line in `_ROUTES`.
"""

from importlib import import_module

from gateway.dialects.dialect import Dialect
from gateway.dialects.openai import images_responses, response_models
from gateway.dialects.openai.wire import speech_models, transcription_models
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS

_ROUTES = (
    "chat",
    "completions",
    "embeddings",
    "images",
    "upscales",
    "speech",
    "transcriptions",
    "videos",
    "face_swaps",
    "models",
)
"""Modules of this package. The most frequent come first: a path is compared with one route after the other."""

DIALECT = Dialect(
    name="openai",
    prefixes=("/v1",),
    routers=tuple(import_module(f"{__name__}.{name}").router for name in _ROUTES),
    errors=OPENAI_ERRORS,
    stream_events=(
        *response_models.STREAM_EVENTS,
        *images_responses.STREAM_EVENTS,
        *speech_models.STREAM_EVENTS,
        *transcription_models.STREAM_EVENTS,
    ),
)
