"""Initialise the VAE so that it averages each cell and repeats the average, instead of at random.

A random initialisation needs hundreds of steps to learn the colours.
"""

from typing import Any

import torch

LEVEL_BIAS = 2.0
"""Value of the constant channel: large against the colours, so that norms over all channels keep their scale."""

ZEROED = ("bias", "conv2.weight", "resample.1.weight", "proj.weight")
"""Ends of the names of weights that start at zero: each path beside a shortcut ends in one of them."""

_NOW = (-1, 1, 1)
"""The tap of a causal kernel of 3 by 3 by 3 that reads the pixel itself."""


def init_colour_passthrough(vae: Any, clips: Any) -> None:
    """Set the weights of a new `AutoencoderKLWan` with shortcuts so that it passes colours through.

    Eight channels carry r, g, b, a constant and their negatives: silu(v) - silu(-v) = v. The shortcuts average and
    repeat them; every other path starts at zero. `clips`, [n, 3, frames, h, w] in -1..1, calibrate the scale.
    """
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            if name.endswith(ZEROED):
                torch.nn.init.zeros_(weight)
        patch = vae.config.patch_size**2
        for colour in range(3):
            for sign, channel in ((1, colour), (-1, colour + 4)):
                _read_only(vae.encoder.conv_in, channel, range(colour * patch, (colour + 1) * patch), sign / patch)
        for channel, level in ((3, LEVEL_BIAS), (7, -LEVEL_BIAS)):
            _read_only(vae.encoder.conv_in, channel, (), 0)
            vae.encoder.conv_in.bias[channel] = level
        # The second average keeps two halves of a cell's time in channels of their own.
        _read_differences(
            vae.encoder.conv_out,
            [(2 * channel + half, 2 * (channel + 4) + half) for channel in range(3) for half in (0, 1)],
        )
        _set_identity(vae.quant_conv)
        _set_identity(vae.post_quant_conv)
        latents = vae.config.z_dim
        vae.quant_conv.bias[latents:] = -6.0
        for colour in range(3):
            for sign, channel in ((1, colour), (-1, colour + 4)):
                _read_only(vae.decoder.conv_in, channel, (2 * colour, 2 * colour + 1), sign / 2)
        for channel, level in ((3, LEVEL_BIAS), (7, -LEVEL_BIAS)):
            _read_only(vae.decoder.conv_in, channel, (), 0)
            vae.decoder.conv_in.bias[channel] = level
        for block in vae.decoder.up_blocks:
            shortcut = block.resnets[0].conv_shortcut
            if block.avg_shortcut is None:
                shortcut.weight[:8] = 0
                for channel in range(8):
                    shortcut.weight[channel, channel] = 1
        _read_differences(vae.decoder.conv_out, [(colour, colour + 4) for colour in range(3) for _ in range(patch)])
        vae.encoder.conv_out.weight[:6] /= vae.encode(clips).latent_dist.mean[:, :6].std()
        decoded = vae.decode(vae.encode(clips).latent_dist.mean).sample
        vae.decoder.conv_out.weight.mul_((clips * decoded).mean() / decoded.square().mean())


def _read_only(conv: Any, channel: int, sources: Any, weight: float) -> None:
    """Make an output channel the sum of the input channels `sources` at the same pixel, times `weight`."""
    conv.weight[channel] = 0
    for source in sources:
        conv.weight[channel, source][_NOW] = weight


def _read_differences(conv: Any, pairs: list[tuple[int, int]]) -> None:
    """Make output channel i the difference of the two input channels `pairs[i]`. Others keep small random weights."""
    conv.weight.mul_(0.05)
    for channel, (positive, negative) in enumerate(pairs):
        _read_only(conv, channel, (positive,), 1.0)
        conv.weight[channel, negative][_NOW] = -1.0


def _set_identity(conv: Any) -> None:
    torch.nn.init.eye_(conv.weight[:, :, 0, 0, 0])
