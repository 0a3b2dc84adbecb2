"""How callers speak. A dialect is a folder with one file per operation, and one line here."""

from fastapi import APIRouter

from gateway.dialects.openai import chat, completions, embeddings, images, models

DIALECTS: dict[str, list[APIRouter]] = {
    "openai": [chat.router, completions.router, embeddings.router, images.router, models.router],
}
