"""Texts of spoken answers: a later request of the same caller refers to an answer by the id of its audio."""

import re
import time
import uuid

from fastapi import Request

from gateway.files.file_store import FileStore
from gateway.settings import Settings

_AUDIO_ID = re.compile(r"audio_[0-9a-f]{32}")
_CONTENT_TYPE = "text/plain; charset=utf-8"


class SpokenAnswers:
    """Stores and finds the texts of spoken answers to the caller of one request."""

    def __init__(self, request: Request) -> None:
        self._caller: str = request.state.trace.caller
        self._files: FileStore = request.app.state.files
        self._settings: Settings = request.app.state.settings

    async def store(self, audio_id: str, text: str) -> int:
        """Store the text of an answer. Return the Unix time at which it expires, in seconds.

        Raises `StorageFull`, and `Overloaded` if the store does not respond.
        """
        await self._files.put(text.encode(), _CONTENT_TYPE, name=self._name(audio_id))
        return int(time.time() + self._settings.files_retention)

    async def find(self, audio_id: str) -> str | None:
        """Return the text of an answer to this caller; None if there is none. Raises `Overloaded`."""
        if not _AUDIO_ID.fullmatch(audio_id):
            return None
        file = await self._files.find(self._name(audio_id), _CONTENT_TYPE)
        return None if file is None else (await self._files.read(file)).decode(errors="replace")

    def _name(self, audio_id: str) -> str:
        return f"spoken answer {audio_id} of {self._caller}"


def new_audio_id() -> str:
    """Return an id for the audio of an answer."""
    return f"audio_{uuid.uuid4().hex}"
