"""Compositions of encoded pictures, made in processes that can be killed (`gateway.media.decoders.compositions`)."""

from collections.abc import Callable, Sequence

from gateway.errors import InvalidRequest
from gateway.media.blobs import sniff_blob
from gateway.media.budget import Budget
from gateway.media.decoder_pool import DecoderPool
from gateway.media.decoders.compositions import Box, Size
from gateway.media.invalid_media import InvalidMedia
from gateway.media.sniffing import MediaKind
from gateway.settings import Settings

_IMAGE: tuple[MediaKind, ...] = ("image",)
_MAX_FRAME_OVERHEAD = 64 * 1024
"""Bytes of a PNG besides its pixels."""


class Compositions:
    """Makes pictures of other pictures.

    The methods return PNG files. They raise `InvalidRequest` with `param` for files that are no images or too large,
    and `Overloaded`.
    """

    def __init__(self, settings: Settings, pool: DecoderPool, new_budget: Callable[[str], Budget]) -> None:
        self._settings = settings
        self._pool = pool
        self._new_budget = new_budget

    async def grid(self, pictures: Sequence[bytes], size: Size, *, param: str, caller: str) -> bytes:
        """Return pictures of `size` in two columns."""
        rows = -(-len(pictures) // 2)
        return await self._compose("grid", pictures, (2 * size[0], rows * size[1]), param, caller)

    async def canvas(self, picture: bytes, size: Size, box: Box, *, param: str, caller: str) -> bytes:
        """Return an image of `size` that shows a picture in `box`, and is transparent elsewhere."""
        return await self._compose("canvas", [picture], size, param, caller, box)

    async def mask(self, mask: bytes, size: Size, *, param: str, caller: str) -> bytes:
        """Return a mask in `size`, transparent where the given one is transparent or, if nowhere, bright."""
        return await self._compose("mask", [mask], size, param, caller)

    async def mixture(self, pictures: Sequence[bytes], size: Size, *, param: str, caller: str) -> bytes:
        """Return the mean of pictures, each scaled and cropped to `size`."""
        return await self._compose("mixture", pictures, size, param, caller)

    async def _compose(
        self, kind: str, files: Sequence[bytes], size: Size, param: str, caller: str, box: Box | None = None
    ) -> bytes:
        try:
            with self._new_budget(caller) as budget:
                task = {
                    "task": "compose",
                    "kind": kind,
                    "sizes": [len(file) for file in files],
                    "media_types": [sniff_blob(file, _IMAGE).media_type for file in files],
                    "max_pixels": self._settings.picture_max_pixels,
                    "width": size[0],
                    "height": size[1],
                    "box": box,
                }
                data = b"".join(files)
                budget.acquire(len(data))
                _, made = await self._pool.decode(
                    task, data, budget=budget, max_body_bytes=_MAX_FRAME_OVERHEAD + 5 * size[0] * size[1]
                )
        except InvalidMedia as error:
            raise InvalidRequest(f"Invalid value for '{param}': {error}.", param=param) from None
        return made
