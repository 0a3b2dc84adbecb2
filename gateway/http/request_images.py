"""Where pictures are kept that are answered as URLs, and how those come back."""

from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from urllib.parse import parse_qs, urlsplit

from fastapi import Request

from gateway.errors import Forbidden, GatewayError, NotFound
from gateway.files.file_store import FileStore
from gateway.media.budget import Budget
from gateway.media.encoded_image import EncodedImage
from gateway.media.loader import MediaLoader
from gateway.media.url_fetcher import MAX_URL_LENGTH
from gateway.operations.generate_image import OutputFormat
from gateway.settings import Settings

_FILES_PATH = "/files/"


class RequestImages:
    """Keeps the pictures of one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._files: FileStore = request.app.state.files
        self._media: MediaLoader = request.app.state.media
        self._stored: list[str] = []

    @cached_property
    def _base(self) -> str:
        """Where this service is; of a request without pictures nobody asks."""
        settings: Settings = self._request.app.state.settings
        return (settings.public_url or str(self._request.base_url)).rstrip("/")

    async def url(self, data: bytes, output_format: OutputFormat) -> str:
        """Keep a picture, and return its URL. Raises `StorageFull`, and `Overloaded` where it cannot be kept."""
        file = await self._files.put(data, f"image/{output_format}")
        self._stored.append(file)
        return self._files.url(file, self._base)

    async def urls(self, pictures: Iterable[bytes], output_format: OutputFormat) -> list[str]:
        """Keep pictures, all of them or none, and return their URLs. Raises as `url` does."""
        try:
            return [await self.url(data, output_format) for data in pictures]
        except GatewayError:
            await self.discard()
            raise

    async def discard(self) -> None:
        """Remove what was kept, as nobody will be told where it is. A store that fails keeps it until it is swept."""
        with suppress(GatewayError):
            await self._files.delete(*self._stored)

    async def load_image(self, reference: str, *, param: str, bare: bool, allowance: Budget) -> EncodedImage:
        """Return the picture that is kept here, or that `Media.picture` fetches. Raises as that does."""
        if own := await self.read_stored(reference):
            return await self._media.load_uploaded_image(own, param=param, allowance=allowance)
        return await self._media.load_image(reference, param=param, bare=bare, allowance=allowance)

    async def read_stored(self, url: str) -> bytes | None:
        """Return what is kept at a URL of this service, which it need not ask itself for; None: it is no such URL.

        Raises `Overloaded` where the store does not answer.
        """
        if not url.startswith(self._base + _FILES_PATH) or len(url) > MAX_URL_LENGTH:
            return None  # to take a query of megabytes apart would hold everybody else up
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        file = parts.path.rpartition(_FILES_PATH)[2]
        try:
            self._files.verify(file, query.get("expires", [""])[0], query.get("signature", [""])[0])
            return await self._files.read(file)
        except (Forbidden, NotFound):
            return None
