"""Files of requests that may be larger than memory: uploads, and files that are fetched or in base64."""

import asyncio
import os

from gateway.errors import GatewayError, InvalidRequest
from gateway.fair_sharing import MemoryPool, MemoryReservation
from gateway.media import inline_data
from gateway.media.fetch_slots import FetchSlots
from gateway.media.invalid_media import InvalidMedia
from gateway.media.spool import SpoolFile
from gateway.media.url_fetcher import UrlFetcher
from gateway.settings import Settings

_HEAD_BYTES = 8192
"""First bytes of a file, which show its type."""
_DISK_MESSAGE = "The open recordings and videos of this caller take the most disk space allowed; try again later."


class Uploads:
    """Receives recordings and videos within limits of bytes. All of them share the disk space."""

    def __init__(self, settings: Settings, fetcher: UrlFetcher, fetch_slots: FetchSlots) -> None:
        """Open nothing. `fetch_slots` bounds the URLs that are fetched at a time."""
        self._settings = settings
        self._fetcher = fetcher
        self._fetch_slots = fetch_slots
        self._disk = MemoryPool(max(settings.recordings_held_bytes, 2 * settings.recording_max_bytes))

    @property
    def max_bytes(self) -> int:
        """Most bytes of a file."""
        return self._settings.recording_max_bytes

    def new_spool(self, caller: str) -> SpoolFile:
        """Return an empty file for a file of `caller`, who must close it."""
        return SpoolFile(self._settings.state / "uploads", MemoryReservation(self._disk, caller, _DISK_MESSAGE))

    async def load(self, reference: str, *, param: str, caller: str, max_bytes: int | None = None) -> SpoolFile:
        """Return the file at an http(s) URL, or that of a data URL or base64. `max_bytes` None: `self.max_bytes`.

        Raises `InvalidRequest` with `param` for a bad reference, `StorageFull` and `Overloaded`.
        """
        spool = self.new_spool(caller)
        try:
            if reference[:8].lower().startswith(("http://", "https://")):
                await self._fetch(reference, spool, caller, max_bytes or self.max_bytes)
            else:
                await self._decode_inline(reference, spool, max_bytes or self.max_bytes)
            await spool.finish()
            return spool
        except InvalidMedia as error:
            spool.close()
            raise invalid(error, param) from None
        except BaseException:
            spool.close()
            raise

    async def _fetch(self, url: str, spool: SpoolFile, caller: str, max_bytes: int) -> None:
        await self._fetch_slots.acquire(caller)
        try:
            await self._fetcher.fetch_to(
                url, spool.write, caller=caller, max_bytes=max_bytes, timeout=self._settings.body_timeout
            )
        finally:
            self._fetch_slots.release(caller)

    async def _decode_inline(self, reference: str, spool: SpoolFile, max_bytes: int) -> None:
        if reference[:5].lower() == "data:":
            encoded, _ = inline_data.parse_data_url(reference, limit=max_bytes)
        elif "://" in reference[:64]:
            raise InvalidMedia("expected an http or https URL, a data URL or base64")
        else:
            encoded = inline_data.parse_base64(reference, limit=max_bytes)
        if not encoded.base64 or encoded.has_percent_escapes():
            raise InvalidMedia("expected base64; its form is 'data:<media type>;base64,<data>'")
        for part in inline_data.iter_base64(encoded):
            await spool.write(part)
            await asyncio.sleep(0)


def read_head(spool: SpoolFile) -> bytes:
    """Return the first bytes of a complete file. Raises `InvalidMedia` if it is empty."""
    descriptor = spool.open()
    try:
        head = os.pread(descriptor, _HEAD_BYTES, 0)
    finally:
        os.close(descriptor)
    if not head:
        raise InvalidMedia("the file is empty")
    return head


def invalid(error: InvalidMedia, param: str) -> GatewayError:
    """Return the failure of a request whose field `param` has a bad file."""
    return InvalidRequest(f"Invalid value for '{param}': {error}.", param=param)
