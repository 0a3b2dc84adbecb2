"""A Wan VAE as networks that take a video piece by piece. Tensors are those of `builders.video.parts`.

In fp16 too, a VAE computes in fp32, as in the examples that its authors publish: its colours are worse in fp16.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from builders.video.vae_caches import CacheSpec


class DecoderStart(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """`latent[batch, channels, 1, h, w] -> video[batch, 3, 1, H, W] in -1..1, caches`. The latent is unscaled."""

    def __init__(self, model: Any, caches: Sequence[CacheSpec]) -> None:
        super().__init__()
        self.model, self._specs = model, tuple(caches)

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Decode the first frame."""
        caches = _empty(self.model, "decoder")
        frames = self.model.decoder(
            self.model.post_quant_conv(latent), feat_cache=caches, feat_idx=[0], first_chunk=True
        )
        size = latent.shape[0], latent.shape[-2], latent.shape[-1]
        return (_to_pixels(self.model, frames), *(_padded(caches[spec.position], spec, size) for spec in self._specs))


class DecoderStep(torch.nn.Module):  # type: ignore[misc]
    """`latent[batch, channels, 1, h, w], caches -> video[batch, 3, 4, H, W] in -1..1, caches`."""

    def __init__(self, model: Any, caches: Sequence[CacheSpec]) -> None:
        super().__init__()
        self.model, self._specs = model, tuple(caches)

    def forward(self, latent: Tensor, caches: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Decode the frames of one more latent frame."""
        held = _filled(self.model, "decoder", self._specs, caches)
        frames = self.model.decoder(self.model.post_quant_conv(latent), feat_cache=held, feat_idx=[0])
        return (_to_pixels(self.model, frames), *(held[spec.position] for spec in self._specs))


class EncoderStart(torch.nn.Module):  # type: ignore[misc]
    """`video[batch, 3, 1, H, W] in -1..1 -> moments[batch, 2 * channels, 1, h, w], caches`."""

    def __init__(self, model: Any, caches: Sequence[CacheSpec]) -> None:
        super().__init__()
        self.model, self._specs = model, tuple(caches)

    def forward(self, video: Tensor) -> tuple[Tensor, ...]:
        """Encode the first frame to means, then log variances."""
        caches = _empty(self.model, "encoder")
        moments = self.model.encoder(_to_patches(self.model, video), feat_cache=caches, feat_idx=[0])
        size = moments.shape[0], moments.shape[-2], moments.shape[-1]
        return (_moments(self.model, moments), *(_padded(caches[spec.position], spec, size) for spec in self._specs))


class EncoderStep(torch.nn.Module):  # type: ignore[misc]
    """`video[batch, 3, 4, H, W] in -1..1, caches -> moments[batch, 2 * channels, 1, h, w], caches`."""

    def __init__(self, model: Any, caches: Sequence[CacheSpec]) -> None:
        super().__init__()
        self.model, self._specs = model, tuple(caches)

    def forward(self, video: Tensor, caches: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Encode four more frames."""
        held = _filled(self.model, "encoder", self._specs, caches)
        moments = self.model.encoder(_to_patches(self.model, video), feat_cache=held, feat_idx=[0])
        return (_moments(self.model, moments), *(held[spec.position] for spec in self._specs))


def _empty(model: Any, side: str) -> list[Any]:
    return [None] * int(model._cached_conv_counts[side])


def _filled(model: Any, side: str, specs: Sequence[CacheSpec], caches: Sequence[Tensor]) -> list[Any]:
    held = _empty(model, side)
    for spec, cache in zip(specs, caches, strict=True):
        held[spec.position] = cache
    return held


def _padded(cache: Any, spec: CacheSpec, size: tuple[int, int, int]) -> Tensor:
    """Return a cache of the first piece in the shape that all later ones have, with frames of zeros before it.

    diffusers writes a mark in place of a cache that has seen nothing yet.
    """
    if isinstance(cache, str):
        batch, height, width = size
        return torch.zeros(batch, spec.channels, spec.frames, spec.scale * height, spec.scale * width)
    return torch.nn.functional.pad(cache, (0, 0, 0, 0, spec.frames - cache.shape[2], 0))


def _to_patches(model: Any, video: Tensor) -> Tensor:
    """Make channels of the pixels of each patch, where the VAE works on patches."""
    side = model.config.patch_size or 1
    if side == 1:
        return video
    parted = video.unflatten(4, (-1, side)).unflatten(3, (-1, side))  # [batch, 3, frames, h, side, w, side]
    return parted.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _to_pixels(model: Any, frames: Tensor) -> Tensor:
    side = model.config.patch_size or 1
    if side != 1:
        parted = frames.unflatten(1, (-1, side, side))  # [batch, 3, side, side, frames, h, w]
        frames = parted.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)
    return frames.clamp(-1.0, 1.0)


def _moments(model: Any, encoded: Tensor) -> Tensor:
    moments: Tensor = model.quant_conv(encoded)
    return moments
