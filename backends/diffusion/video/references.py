"""The encoding of references: the first frame of a video, or the frames of a video to start from."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from backends.diffusion.components import Array, Components
from backends.diffusion.families.family import Floats
from backends.diffusion.images import pixels_to_tensor
from backends.diffusion.init_image import fill_transparent
from backends.diffusion.options import Size
from backends.diffusion.pipeline_config import ImageProcessor, PipelineConfig
from backends.diffusion.preprocessor import raise_if_cancelled
from backends.diffusion.schedulers import Latent
from backends.diffusion.video.frame_encoder import FrameEncoder
from backends.serving.images import DecodedImage, Pixels, read_image

_MAX_ASPECT_RATIO = 16
"""Ratio of the sides beyond which a picture is cropped before the image encoder's processor resizes it."""


@dataclass(frozen=True, slots=True)
class References:
    """The encoded references of a request; `denoiser_inputs` are further inputs of the denoiser, without a batch.

    The others are as in `DenoisingJob`.
    """

    init_latent: Latent | None = None
    first_frame: Latent | None = None
    denoiser_inputs: dict[str, Array] = field(default_factory=dict)


class ReferenceEncoder:
    """Encodes references by the VAE, and by the image encoder of a pipeline that has one. Any thread may use it."""

    def __init__(self, components: Components, config: PipelineConfig) -> None:
        assert config.video is not None
        self._components = components
        self._video = config.video
        self._vae = config.vae
        self._frames = FrameEncoder(components, config)

    def encode_image(self, file: bytes, size: Size, num_frames: int, is_cancelled: Callable[[], bool]) -> References:
        """Encode a picture as the first frame of a video, resized to its size, in the way that the denoiser takes it.

        Raises `InvalidValue`, `Cancelled` once `is_cancelled` returns true, or what `Components` raise.
        """
        image = _read_opaque(file, "image")
        first = pixels_to_tensor(image.resize(size).pixels)
        if self._video.image_conditioning == "first-frame":
            return References(first_frame=self._frames.encode(lambda index: first, 1))
        blank = np.zeros_like(first)

        def read_frame(index: int) -> Floats:
            raise_if_cancelled(is_cancelled)
            return blank if index else first

        latent = self._frames.encode(read_frame, num_frames)
        # A channel for each frame of a latent frame: 1 where it is given. The first latent frame is one frame.
        mask = np.zeros((self._vae.temporal_factor, *latent.shape[1:]), np.float32)
        mask[:, 0] = 1
        inputs: dict[str, Array] = {"condition": np.concatenate([mask, latent])}
        if self._video.image_encoder is not None and self._video.image_processor is not None:
            processed = process_image(image.pixels, self._video.image_processor)
            found = self._components.run(self._video.image_encoder, {"image": processed[None]}, ["image_embeds"])
            inputs["image_embeds"] = found["image_embeds"][0]
        return References(denoiser_inputs=inputs)

    def encode_frames(
        self, files: tuple[bytes, ...], size: Size, num_frames: int, is_cancelled: Callable[[], bool]
    ) -> References:
        """Encode `num_frames` pictures as the video to start from; the last one is repeated if there are fewer.

        Raises what `encode_image` does.
        """

        def read_frame(index: int) -> Floats:
            raise_if_cancelled(is_cancelled)
            return pixels_to_tensor(_read_opaque(files[min(index, len(files) - 1)], "frames").resize(size).pixels)

        return References(init_latent=self._frames.encode(read_frame, num_frames))


def process_image(pixels: Pixels, processor: ImageProcessor) -> Floats:
    """Return a picture as an image encoder of CLIP takes it, float32[3, side, side].

    The shorter side is resized to that of the encoder and the longer one cropped, as transformers'
    `CLIPImageProcessor` does.
    """
    height, width = pixels.shape[:2]
    longest = _MAX_ASPECT_RATIO * min(height, width)
    pixels = _crop_center(pixels, min(height, longest), min(width, longest))
    height, width = pixels.shape[:2]
    side, shorter = processor.size, min(height, width)
    resized = Image.fromarray(pixels).resize(
        (int(side * width / shorter), int(side * height / shorter)), Image.Resampling.BICUBIC
    )
    cropped = _crop_center(np.asarray(resized), side, side).astype(np.float32) / np.float32(255)
    normalized: Floats = (cropped - np.asarray(processor.mean, np.float32)) / np.asarray(processor.std, np.float32)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1))


def _crop_center(pixels: Pixels, height: int, width: int) -> Pixels:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _read_opaque(file: bytes, name: str) -> DecodedImage:
    """Decode a picture of the input `name`, whose transparent parts are filled. Raises `InvalidValue`."""
    image = read_image(file, name)
    if image.transparency is None:
        return image
    return DecodedImage(fill_transparent(image.pixels, image.transparency))
