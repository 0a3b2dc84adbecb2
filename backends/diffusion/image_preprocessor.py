"""The validation and encoding of a request for images, which yield a job for the denoiser."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.diffusion.denoising_job import EncodedImage
from backends.diffusion.init_image import InitImage, load_init_image
from backends.diffusion.options import Options
from backends.diffusion.preprocessor import (
    DEFAULT_STRENGTH,
    NUM_SEEDS,
    PreprocessedRequest,
    Preprocessor,
    check_range,
    check_strength,
    first_seed,
    preview_schedule,
    raise_if_cancelled,
)
from backends.diffusion.request import ImageRequest
from backends.serving.errors import InvalidValue, UnsupportedOption
from backends.serving.images import OUTPUT_FORMATS, Pixels, encode_image


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedImages(PreprocessedRequest):
    """A request for images whose prompt and image are encoded."""

    init_image: InitImage | None
    output_format: str
    quality: int | None

    def encode_image_file(self, pixels: Pixels) -> bytes:
        """Encode a finished image as a file, with the unmasked part taken from the client's image."""
        return encode_image(
            self.init_image.composite(pixels) if self.init_image else pixels, self.output_format, self.quality
        )


class ImagePreprocessor(Preprocessor[ImageRequest, PreprocessedImages, Options]):
    """Validates requests for images, and calls the encoders (`Preprocessor`)."""

    def preprocess(self, request: ImageRequest, is_cancelled: Callable[[], bool]) -> PreprocessedImages:
        """Validate and encode a request (`Preprocessor.preprocess`)."""
        self._check(request)
        scale = self._guidance(request)
        init_image = self._load_init_image(request)
        size = init_image.size if init_image else self._size(request, self._options.default_size)
        masked = init_image is not None and init_image.mask is not None
        strength = 1.0
        if init_image:
            strength = (1.0 if masked else DEFAULT_STRENGTH) if request.strength is None else request.strength
        plan = self._scheduler.plan(self._steps(request), strength, size)
        raise_if_cancelled(is_cancelled)
        guided_prompt = self._family.encode_prompt(request.prompt, request.negative_prompt, scale, size)
        raise_if_cancelled(is_cancelled)
        encoded_image = None
        if init_image:
            encoded_image = self._encode_init_image(init_image, from_noise=masked and strength == 1)
        seed = first_seed(request)
        return PreprocessedImages(
            shape=self._config.vae.latent_shape(size),
            plan=plan,
            guided_prompt=guided_prompt,
            vae=self._config.vae,
            seeds=tuple((seed + number) % NUM_SEEDS for number in range(request.num_images)),
            previews=preview_schedule(len(plan.timesteps), request.partial_images),
            encoded_image=encoded_image,
            init_image=init_image,
            output_format=request.output_format,
            quality=request.quality,
        )

    def _check(self, request: ImageRequest) -> None:
        check_range(request.num_images, 1, self._options.max_images, "num_images")
        self._check_options(request)
        if request.output_format not in OUTPUT_FORMATS:
            raise InvalidValue(
                f"This must be one of {', '.join(OUTPUT_FORMATS)}, not {request.output_format[:50]!r}.", "output_format"
            )
        if request.images:
            if request.strength is not None:
                check_strength(request.strength)
        elif request.strength is not None:
            raise InvalidValue("This requires an image, and none was sent.", "strength")
        elif request.mask is not None:
            raise InvalidValue("This requires an image, and none was sent.", "mask")

    def _load_init_image(self, request: ImageRequest) -> InitImage | None:
        if not request.images:
            return None
        if len(request.images) > 1:
            raise UnsupportedOption(f"This model edits one image, and {len(request.images)} were sent.", "image")
        if self._config.vae_encoder is None:
            raise UnsupportedOption("This model takes no images.", "image")
        return load_init_image(
            request.images[0],
            request.mask,
            lambda size: self._size(request, self._options.nearest_size(size)),
        )

    def _encode_init_image(self, init_image: InitImage, *, from_noise: bool) -> EncodedImage:
        assert self._config.vae_encoder is not None
        inputs = {"image": init_image.to_tensor()[None]}
        found = self._components.run(self._config.vae_encoder, inputs, ["moments"])
        mask = init_image.latent_mask(self._config.vae.factor)
        return EncodedImage(found["moments"][0].astype(np.float32, copy=False), mask, from_noise)
