"""The caches that a Wan VAE carries from one piece of a video to the next: their number and shapes."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from builders.video.pipeline import VideoPipeline

_CELLS = 2
"""Side of the latent that shapes are measured with."""


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """One cache of a stream: [batch, channels, frames, scale * h, scale * w] for a latent of h x w cells."""

    position: int
    """Index in diffusers' own list of caches, which has entries that stay empty."""
    channels: int
    frames: int
    scale: int


def decoder_caches(pipeline: VideoPipeline) -> tuple[CacheSpec, ...]:
    """Return the caches of the decoder."""
    return _measured(json.dumps(pipeline.config("vae"), sort_keys=True))[1]


def encoder_caches(pipeline: VideoPipeline) -> tuple[CacheSpec, ...]:
    """Return the caches of the encoder."""
    return _measured(json.dumps(pipeline.config("vae"), sort_keys=True))[0]


@cache
def _measured(config: str) -> tuple[tuple[CacheSpec, ...], tuple[CacheSpec, ...]]:
    """Run a VAE without weights for two pieces of a video, and look at its caches: those of encoder and decoder."""
    import diffusers
    import torch

    values = {key: value for key, value in json.loads(config).items() if not key.startswith("_")}
    with torch.device("meta"), torch.inference_mode():
        vae = diffusers.AutoencoderKLWan.from_config(values).eval()
        patch = int(values.get("patch_size") or 1)
        side = _CELLS * vae.config.scale_factor_spatial // patch
        pieces = [torch.empty(1, vae.config.in_channels, frames, side, side) for frames in (1, 4)]
        latents = [torch.empty(1, vae.config.z_dim, 1, _CELLS, _CELLS)] * 2
        return (
            _specs(vae._cached_conv_counts["encoder"], zip([vae.encoder] * 2, pieces, strict=True)),
            _specs(
                vae._cached_conv_counts["decoder"],
                zip([partial(vae.decoder, first_chunk=True), vae.decoder], latents, strict=True),
            ),
        )


def _specs(positions: int, calls: Iterable[tuple[Callable[..., Any], Any]]) -> tuple[CacheSpec, ...]:
    caches: list[Any] = [None] * positions
    for run, piece in calls:
        run(piece, feat_cache=caches, feat_idx=[0])
    return tuple(
        CacheSpec(position, cache.shape[1], cache.shape[2], cache.shape[3] // _CELLS)
        for position, cache in enumerate(caches)
        if cache is not None
    )
