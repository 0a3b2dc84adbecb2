"""Requests for images: which of them the queue has room for, and the pipeline that draws them."""

from backends.diffusion.active_request import ActiveImageRequest, ImageSender
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.latent_decoder import LatentDecoder
from backends.diffusion.preprocessor import Preprocessor
from backends.diffusion.request import Request
from backends.serving.errors import GenerationError, Overloaded
from backends.serving.request_frontend import RequestFrontend


class DiffusionFrontend(RequestFrontend[Request, ImageSender, ActiveImageRequest]):
    """Preprocesses requests, and hands them to the denoiser and their latents to the decoder."""

    def __init__(
        self,
        preprocessor: Preprocessor,
        denoiser: Denoiser,
        decoder: LatentDecoder,
        max_waiting: int,
        max_waiting_bytes: int,
    ) -> None:
        """Own the denoiser and the decoder: `close` closes them.

        A request is refused as overloaded where more than `max_waiting` images would be unanswered with it, or more
        than `max_waiting_bytes` of texts and images would wait for preprocessing. A request that would be the only one
        is admitted however large it is.
        """
        super().__init__(denoiser.stats)
        self.preprocessor = preprocessor
        self.denoiser = denoiser
        self.decoder = decoder
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        # Two at once, so that Triton can put the prompts of requests that come together into one batch.
        self.prompt_pool = self.new_pool(2, "diffusion-prompts")
        # A large image takes seconds to encode.
        self.image_pool = self.new_pool(1, "diffusion-images")

    def make_active(self, key: int, request: Request, sender: ImageSender) -> ActiveImageRequest:
        """Return the active request that `key` identifies; it has not started."""
        return ActiveImageRequest(key, request, sender, self)

    def queue_error(self, active: ActiveImageRequest) -> GenerationError | None:
        """Return `Overloaded` where a request is one image or one byte too many."""
        if self._active_requests and self.active_size + active.size > self._max_waiting:
            return Overloaded(f"{self.active_size} images are being generated or are waiting; try again later.")
        waiting_bytes = sum(other.nbytes for other in self._active_requests.values())
        if waiting_bytes and waiting_bytes + active.nbytes > self._max_waiting_bytes:
            return Overloaded(f"{waiting_bytes / 1e6:.0f} MB of requests are waiting; try again later.")
        return None

    def close_scheduler(self) -> None:
        """Fail every job that is open."""
        self.denoiser.close()
        self.decoder.close()

    def count_image(self) -> None:
        """Count a decoded image. Called by the decoder's thread alone."""
        self.denoiser.stats.images += 1
