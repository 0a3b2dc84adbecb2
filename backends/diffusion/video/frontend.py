"""Requests for videos, and the pipeline that generates them."""

import threading

from backends.diffusion.denoiser import Denoiser
from backends.diffusion.options import Size
from backends.diffusion.request import VideoRequest
from backends.diffusion.request_frontend import DiffusionFrontend
from backends.diffusion.video.active_request import ActiveVideoRequest, VideoSender
from backends.diffusion.video.frame_decoder import FrameDecoder
from backends.diffusion.video.mp4_file import DEFAULT_QUALITY, Mp4File
from backends.diffusion.video.options import VideoOptions
from backends.diffusion.video.preprocessor import VideoPreprocessor
from backends.serving.senders import SenderThreads


class VideoFrontend(DiffusionFrontend[VideoRequest, VideoSender, ActiveVideoRequest]):
    """Preprocesses requests, and hands them to the denoiser, their latents to the decoder and frames to an encoder."""

    outputs = "videos"
    file_threads = 2  # a first frame does not wait until a long video is encoded

    def __init__(
        self,
        preprocessor: VideoPreprocessor,
        denoiser: Denoiser,
        decoder: FrameDecoder,
        options: VideoOptions,
        encoder_names: tuple[str, ...],
    ) -> None:
        """Own the denoiser and the decoder: `close` closes them. `encoder_names` are as in `Mp4File`."""
        super().__init__(denoiser, options)
        self._encoder_names = encoder_names
        self.preprocessor = preprocessor
        self.decoder = decoder
        # The threads that send responses must not wait for an encoder.
        self.encoders = SenderThreads(name="diffusion-video-encoder")
        self._count_lock = threading.Lock()

    def make_active(self, key: int, request: VideoRequest, sender: VideoSender) -> ActiveVideoRequest:
        """Return the active request that `key` identifies; it has not started."""
        return ActiveVideoRequest(key, request, sender, self)

    def open_file(self, size: Size, fps: int, quality: int | None) -> Mp4File:
        """Return a new video file. Raises `av.FFmpegError`."""
        return Mp4File(size, fps, self._encoder_names, DEFAULT_QUALITY if quality is None else quality)

    def close_decoder(self) -> None:
        """Drop the latents that are not decoded and the videos that are not finished."""
        self.decoder.close()
        self.encoders.close()

    def count_video(self) -> None:
        """Count a finished video."""
        with self._count_lock:
            self.denoiser.stats.videos += 1
