"""The validation and encoding of a request for a video, which yield a job for the denoiser."""

from collections.abc import Callable
from dataclasses import dataclass

from backends.diffusion.components import Array
from backends.diffusion.families import GuidedPrompt
from backends.diffusion.options import Size
from backends.diffusion.preprocessor import (
    DEFAULT_STRENGTH,
    PreprocessedRequest,
    Preprocessor,
    check_range,
    check_strength,
    first_seed,
    preview_schedule,
    raise_if_cancelled,
)
from backends.diffusion.request import VideoRequest
from backends.diffusion.video.options import VideoOptions
from backends.diffusion.video.references import ReferenceEncoder, References
from backends.serving.errors import InvalidValue, UnsupportedOption
from backends.serving.images import read_image


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedVideo(PreprocessedRequest):
    """A request for a video whose prompt and files are encoded.

    `size` is the width and the height in pixels. `num_frames` is the length of the video; the model may generate more.
    """

    size: Size
    num_frames: int
    fps: int
    quality: int | None


class VideoPreprocessor(Preprocessor[VideoRequest, PreprocessedVideo, VideoOptions]):
    """Validates requests for videos, and calls the encoders (`Preprocessor`)."""

    def preprocess(self, request: VideoRequest, is_cancelled: Callable[[], bool]) -> PreprocessedVideo:
        """Validate and encode a request (`Preprocessor.preprocess`)."""
        self._check(request)
        scale = self._guidance(request)
        num_frames = self._num_frames(request)
        num_generated = self._options.round_up(num_frames)
        size = self._video_size(request)
        strength = 1.0
        if request.frames:
            strength = DEFAULT_STRENGTH if request.strength is None else request.strength
        plan = self._scheduler.plan(self._steps(request), strength, size)
        raise_if_cancelled(is_cancelled)
        guided_prompt = self._family.encode_prompt(request.prompt, request.negative_prompt, scale, size)
        raise_if_cancelled(is_cancelled)
        references = self._encode_references(request, size, num_generated, is_cancelled)
        video = self._config.video
        assert video is not None
        return PreprocessedVideo(
            shape=self._config.vae.latent_shape(size, num_generated),
            plan=plan,
            guided_prompt=_with_inputs(guided_prompt, references.denoiser_inputs),
            vae=self._config.vae,
            seeds=(first_seed(request),),
            previews=preview_schedule(len(plan.timesteps), request.partial_images),
            init_latent=references.init_latent,
            first_frame=references.first_frame,
            frame_timesteps=video.frame_timesteps,
            size=size,
            num_frames=num_frames,
            fps=self._options.default_fps if request.fps is None else request.fps,
            quality=request.quality,
        )

    @property
    def _needs_image(self) -> bool:
        return self._config.video is not None and self._config.video.image_conditioning == "channels"

    def _check(self, request: VideoRequest) -> None:
        self._check_options(request)
        if request.num_frames is not None:
            self._options.check_num_frames(request.num_frames)
        if request.fps is not None:
            check_range(request.fps, 1, self._options.max_fps, "fps")
        for name, files in (("image", request.images), ("frames", request.frames)):
            if files and name not in self._options.references:
                raise UnsupportedOption(f"This model takes no {name}.", name)
        if request.images and request.frames:
            raise UnsupportedOption(
                "An image is a first frame; it cannot be sent with the frames of a video.", "frames"
            )
        if len(request.images) > 1:
            raise UnsupportedOption(f"This model takes one image, and {len(request.images)} were sent.", "image")
        if self._needs_image and not request.images:
            raise InvalidValue("This model needs an image, the first frame.", "image")
        if request.strength is not None:
            if not request.frames:
                raise InvalidValue("This requires the frames of a video, and none were sent.", "strength")
            check_strength(request.strength)

    def _num_frames(self, request: VideoRequest) -> int:
        available = len(request.frames)
        if request.num_frames is None:
            return min(available, self._options.max_num_frames) if available else self._options.default_num_frames
        if available and request.num_frames > available:
            raise InvalidValue(f"This must be at most the number of frames sent, {available}.", "num_frames")
        return request.num_frames

    def _video_size(self, request: VideoRequest) -> Size:
        if request.width is not None and request.height is not None:
            return self._size(request, self._options.default_size)
        if request.images:
            default = self._options.nearest_size(read_image(request.images[0]).size)
        elif request.frames:
            default = self._options.nearest_size(read_image(request.frames[0], "frames").size)
        else:
            default = self._options.default_size
        return self._size(request, default)

    def _encode_references(
        self, request: VideoRequest, size: Size, num_frames: int, is_cancelled: Callable[[], bool]
    ) -> References:
        encoder = ReferenceEncoder(self._components, self._config)
        if request.images:
            return encoder.encode_image(request.images[0], size, num_frames, is_cancelled)
        if request.frames:
            return encoder.encode_frames(request.frames, size, num_frames, is_cancelled)
        return References()


def _with_inputs(prompt: GuidedPrompt, inputs: dict[str, Array]) -> GuidedPrompt:
    """Add inputs of the denoiser that are the same for both conditions."""
    if not inputs:
        return prompt
    negative = None if prompt.negative is None else {**prompt.negative, **inputs}
    return GuidedPrompt({**prompt.positive, **inputs}, negative, prompt.scale)
