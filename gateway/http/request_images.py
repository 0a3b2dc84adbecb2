"""Stored images of a request: stores generated images, and reads images whose URLs at this service a request sends."""

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
    """The stored images of one request: those that it generates, and those that it refers to by URL."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._files: FileStore = request.app.state.files
        self._media: MediaLoader = request.app.state.media
        self._stored: list[str] = []

    @cached_property
    def _base(self) -> str:
        """The URL of this service, computed at the first use: most requests have no images."""
        settings: Settings = self._request.app.state.settings
        return (settings.public_url or str(self._request.base_url)).rstrip("/")

    async def store(self, data: bytes, output_format: OutputFormat) -> str:
        """Store an image and return its URL. Raises `StorageFull`, and `Overloaded` if the store fails."""
        return await self.store_file(data, f"image/{output_format}")

    async def store_file(self, data: bytes, content_type: str) -> str:
        """Store a generated file and return its URL. Raises as `store` does."""
        file = await self._files.put(data, content_type)
        self._stored.append(file)
        return self._files.url(file, self._base)

    async def store_all(self, images: Iterable[bytes], output_format: OutputFormat) -> list[str]:
        """Store all images or none, and return their URLs. Raises as `store` does."""
        try:
            return [await self.store(data, output_format) for data in images]
        except GatewayError:
            await self.discard()
            raise

    async def discard(self) -> None:
        """Delete the stored images: no caller gets their URLs. If that fails, a later sweep removes them."""
        with suppress(GatewayError):
            await self._files.delete(*self._stored)

    async def load_image(self, reference: str, *, param: str, allow_base64: bool, budget: Budget) -> EncodedImage:
        """Return the image at `reference`: a stored image, or one that `MediaLoader.load_image` fetches or decodes.

        Raises as `MediaLoader.load_image` does.
        """
        if stored := await self.read(reference):
            return await self._media.load_uploaded_image(stored, param=param, budget=budget)
        return await self._media.load_image(reference, param=param, allow_base64=allow_base64, budget=budget)

    async def read(self, url: str) -> bytes | None:
        """Return the stored image at a URL of this service, without an HTTP request; None for any other URL.

        Raises `Overloaded` if the store does not respond.
        """
        file = self.find(url)
        try:
            return None if file is None else await self._files.read(file)
        except NotFound:
            return None

    def find(self, url: str) -> str | None:
        """Return the id of the file at a URL of this service, which may have been removed; None for any other URL."""
        if not url.startswith(self._base + _FILES_PATH) or len(url) > MAX_URL_LENGTH:
            return None  # parsing a query of megabytes would block the event loop
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        file = parts.path.rpartition(_FILES_PATH)[2]
        try:
            self._files.verify(file, query.get("expires", [""])[0], query.get("signature", [""])[0])
            return file
        except (Forbidden, NotFound):
            return None
