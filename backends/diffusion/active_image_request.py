"""One request for images from its admission to its last response."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from backends.diffusion.active_request import ActiveDiffusionRequest, ProgressSender
from backends.diffusion.denoising_job import BatchRow, DenoisingJob
from backends.diffusion.image_preprocessor import PreprocessedImages
from backends.diffusion.latent_decoder import DecodeTask
from backends.diffusion.request import ImageRequest
from backends.diffusion.schedulers import Latent
from backends.serving.images import Pixels

if TYPE_CHECKING:
    from backends.diffusion.image_frontend import ImageFrontend


class ImageSender(ProgressSender, Protocol):
    """Sends the responses of one request."""

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        """Send the preview `number`, from 0 on, of the image `index` as an encoded file."""

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        """Send the image `index` as an encoded file; `final` marks the last response."""


class ActiveImageRequest(ActiveDiffusionRequest["ImageFrontend", ImageSender, ImageRequest]):
    """One request from its admission to its last response: progress, previews, and its images."""

    def __init__(self, key: int, request: ImageRequest, sender: ImageSender, frontend: "ImageFrontend") -> None:
        """The `size` of a request is how many images it asks for."""
        super().__init__(key, request, sender, frontend, max(1, request.num_images))
        self._prepared: PreprocessedImages
        self._num_pending = 0
        """Images that have not been sent; used by the sender thread alone."""

    def make_job(self, request: ImageRequest) -> DenoisingJob:
        """Preprocess a request and return its job."""
        self._prepared = self._frontend.preprocessor.preprocess(request, self.is_abandoned)
        self._num_pending = len(self._prepared.seeds)
        return self._prepared.make_job(self.on_progress, self.on_finished, self.on_failed, self.on_preview)

    def on_preview(self, row: BatchRow, number: int, latent: Latent) -> None:
        """Have the latent of a preview decoded and sent."""

        def on_decoded(pixels: Pixels) -> None:
            self.post(lambda: self._send_preview(row.index, number, pixels))

        self._frontend.decoder.submit([DecodeTask(row.job, latent, on_decoded)])

    def on_finished(self, rows: list[BatchRow]) -> None:
        """Have finished latents decoded and sent."""
        self._frontend.decoder.submit([DecodeTask(row.job, row.sample, self._decode_callback(row)) for row in rows])

    def _decode_callback(self, row: BatchRow) -> Callable[[Pixels], None]:
        def on_decoded(pixels: Pixels) -> None:
            self._frontend.count_image()
            self.post(lambda: self._send_image(row, pixels))

        return on_decoded

    def _send_preview(self, index: int, number: int, pixels: Pixels) -> None:
        self._sender.send_preview(self._prepared.encode_image_file(pixels), index, number)

    def _send_image(self, row: BatchRow, pixels: Pixels) -> None:
        try:
            file = self._prepared.encode_image_file(pixels)
        except Exception as error:
            self.on_failed(error)
            return
        self._num_pending -= 1
        if self._num_pending:
            self._sender.send_image(file, row.seed, row.index, final=False)
        elif self.stop():  # otherwise an error has been posted, and is the last response
            self.send_last(lambda: self._sender.send_image(file, row.seed, row.index, final=True))
