"""The validation and encoding of a request for a video, which yield a job for the denoiser."""

from collections.abc import Callable
from dataclasses import dataclass

from backends.diffusion.families.family import Floats
from backends.diffusion.images import pixels_to_tensor, read_image
from backends.diffusion.init_image import fill_transparent
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
from backends.diffusion.schedulers import Latent
from backends.diffusion.video.frame_encoder import FrameEncoder
from backends.diffusion.video.options import VideoOptions
from backends.serving.errors import InvalidValue, UnsupportedOption


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedVideo(PreprocessedRequest):
    """A request for a video whose prompt and files are encoded. `size` is the width and the height in pixels."""

    size: Size
    num_frames: int
    fps: int
    quality: int | None


@dataclass(slots=True)
class _Conditions:
    """What the files of a request determine."""

    init_latent: Latent | None = None
    first_frame: Latent | None = None


class VideoPreprocessor(Preprocessor[VideoRequest, PreprocessedVideo, VideoOptions]):
    """Validates requests for videos, and calls the encoders (`Preprocessor`)."""

    def preprocess(self, request: VideoRequest, is_cancelled: Callable[[], bool]) -> PreprocessedVideo:
        """Validate and encode a request (`Preprocessor.preprocess`)."""
        self._check(request)
        scale = self._guidance(request)
        num_frames = self._num_frames(request)
        size = self._video_size(request)
        strength = 1.0
        if request.frames:
            strength = DEFAULT_STRENGTH if request.strength is None else request.strength
        plan = self._scheduler.plan(self._steps(request), strength, size)
        raise_if_cancelled(is_cancelled)
        guided_prompt = self._family.encode_prompt(request.prompt, request.negative_prompt, scale, size)
        raise_if_cancelled(is_cancelled)
        conditions = self._encode_files(request, size, num_frames, is_cancelled)
        video = self._config.video
        assert video is not None
        return PreprocessedVideo(
            shape=self._config.vae.latent_shape(size, num_frames),
            plan=plan,
            guided_prompt=guided_prompt,
            vae=self._config.vae,
            seeds=(first_seed(request),),
            previews=preview_schedule(len(plan.timesteps), request.partial_images),
            init_latent=conditions.init_latent,
            first_frame=conditions.first_frame,
            frame_timesteps=video.frame_timesteps,
            size=size,
            num_frames=num_frames,
            fps=self._options.default_fps if request.fps is None else request.fps,
            quality=request.quality,
        )

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
        if request.strength is not None:
            if not request.frames:
                raise InvalidValue("This requires the frames of a video, and none were sent.", "strength")
            check_strength(request.strength)

    def _num_frames(self, request: VideoRequest) -> int:
        available = len(request.frames)
        if request.num_frames is None:
            return self._options.fitting_num_frames(available) if available else self._options.default_num_frames
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

    def _encode_files(
        self, request: VideoRequest, size: Size, num_frames: int, is_cancelled: Callable[[], bool]
    ) -> _Conditions:
        files, name = (request.images, "image") if request.images else (request.frames, "frames")
        if not files:
            return _Conditions()

        def read_frame(index: int) -> Floats:
            raise_if_cancelled(is_cancelled)
            return _read_frame(files[index], name, size)

        encoder = FrameEncoder(self._components, self._config)
        if request.images:
            return _Conditions(first_frame=encoder.encode(read_frame, 1))
        return _Conditions(init_latent=encoder.encode(read_frame, num_frames))


def _read_frame(file: bytes, name: str, size: Size) -> Floats:
    """Return an encoded picture in a width and a height, float32[3, height, width] in -1..1."""
    image = read_image(file, name).resize(size)
    pixels = image.pixels
    if image.transparency is not None:
        pixels = fill_transparent(pixels, image.transparency)
    return pixels_to_tensor(pixels)
