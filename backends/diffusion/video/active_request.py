"""One request for a video from its admission to its last response."""

from typing import TYPE_CHECKING, Protocol

from backends.diffusion.active_request import ActiveDiffusionRequest, ProgressSender
from backends.diffusion.denoising_job import BatchRow, DenoisingJob
from backends.diffusion.families.family import Floats
from backends.diffusion.images import tensor_to_pixels
from backends.diffusion.request import VideoRequest
from backends.diffusion.schedulers import Latent
from backends.diffusion.video.frame_decoder import FrameStream
from backends.diffusion.video.mp4_file import Mp4File
from backends.diffusion.video.preprocessor import PreprocessedVideo
from backends.serving.images import encode_image

if TYPE_CHECKING:
    from backends.diffusion.video.frontend import VideoFrontend

_DENOISING_SHARE = 0.9
"""Share of the denoising steps in the progress; the rest is that of the decoded frames."""


class VideoSender(ProgressSender, Protocol):
    """Sends the responses of one request."""

    def send_preview(self, image: bytes, number: int) -> None:
        """Send the preview `number`, from 0 on, as a WebP of one frame."""

    def send_video(self, video: bytes, size: tuple[int, int], num_frames: int, fps: int, seed: int) -> None:
        """Send the video, an MP4, as the last response. `size` is its width and height in pixels."""


class ActiveVideoRequest(ActiveDiffusionRequest["VideoFrontend", VideoSender, VideoRequest]):
    """One request from its admission to its last response: progress, previews, and the video."""

    output = "video"

    def __init__(self, key: int, request: VideoRequest, sender: VideoSender, frontend: "VideoFrontend") -> None:
        super().__init__(key, request, sender, frontend)
        self._has_first_frame = bool(request.images)
        self._prepared: PreprocessedVideo
        self._file: Mp4File | None = None
        """The video that is being written; used by one encoder thread alone."""
        self._num_encoded = 0
        """Frames in it."""

    def make_job(self, request: VideoRequest) -> DenoisingJob:
        """Preprocess a request and return its job."""
        self._prepared = self._frontend.preprocessor.preprocess(request, self.is_abandoned)
        return self._prepared.make_job(
            lambda fraction: self.on_progress(_DENOISING_SHARE * fraction),
            self.on_finished,
            self.on_failed,
            self.on_preview,
        )

    def release(self) -> None:
        """Drop the inputs, cancel the job, and drop the video."""
        super().release()
        self._frontend.encoders.post(self.key, self._close_file)

    def on_preview(self, row: BatchRow, number: int, latent: Latent) -> None:
        """Have the first frame of a preview decoded and sent; a frame after it if the first one was given."""
        length = 2 if self._has_first_frame else 1

        def on_frames(frames: Floats, is_last: bool) -> None:
            self._frontend.decoder.frames_read(stream)
            if is_last:
                pixels = tensor_to_pixels(frames[:, -1])
                self.post(lambda: self._sender.send_preview(encode_image(pixels, "webp"), number))

        stream = FrameStream(row.job, latent[:, :length], on_frames)
        self._frontend.decoder.submit([stream])

    def on_finished(self, rows: list[BatchRow]) -> None:
        """Have the finished latent decoded, and its frames encoded."""
        (row,) = rows

        def on_frames(frames: Floats, is_last: bool) -> None:
            self.on_progress(_DENOISING_SHARE + (1 - _DENOISING_SHARE) * stream.next_frame / stream.length)
            self._frontend.encoders.post(self.key, lambda: self._encode(stream, frames, is_last, row.seed))

        stream = FrameStream(row.job, row.sample, on_frames)
        self._frontend.decoder.submit([stream])

    def _encode(self, stream: FrameStream, frames: Floats, is_last: bool, seed: int) -> None:
        try:
            if self.stopped:
                return
            prepared = self._prepared
            if self._file is None:
                self._file = self._frontend.open_file(prepared.size, prepared.fps, prepared.quality)
            # The model generates whole latent frames: those beyond the length of the video are dropped.
            kept = frames[:, : prepared.num_frames - self._num_encoded]
            self._file.add(tensor_to_pixels(kept))
            self._num_encoded += kept.shape[1]
            if is_last:
                video, size = self._file.finish(), self._file.size
                self._close_file()
                self._frontend.count_video()
                self.finish(lambda: self._sender.send_video(video, size, prepared.num_frames, prepared.fps, seed))
        except Exception as error:
            self.on_failed(error)
        finally:
            self._frontend.decoder.frames_read(stream)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
