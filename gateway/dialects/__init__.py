"""How callers speak. A dialect is a folder with one file per operation, and one line here."""

from fastapi import APIRouter

from gateway.dialects.openai import chat, completions, embeddings, images, models
from gateway.dialects.platform import chat as platform_chat
from gateway.dialects.platform import images as platform_images
from gateway.dialects.platform import tasks as platform_tasks

DIALECTS: dict[str, list[APIRouter]] = {
    "openai": [chat.router, completions.router, embeddings.router, images.router, models.router],
    "platform": [platform_chat.router, platform_images.router, platform_tasks.router],
}
