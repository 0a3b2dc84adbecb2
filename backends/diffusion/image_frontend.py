"""Requests for images, and the pipeline that draws them."""

from backends.diffusion.active_image_request import ActiveImageRequest, ImageSender
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.image_preprocessor import ImagePreprocessor
from backends.diffusion.latent_decoder import LatentDecoder
from backends.diffusion.options import Options
from backends.diffusion.request import ImageRequest
from backends.diffusion.request_frontend import DiffusionFrontend


class ImageFrontend(DiffusionFrontend[ImageRequest, ImageSender, ActiveImageRequest]):
    """Preprocesses requests, and hands them to the denoiser and their latents to the decoder."""

    def __init__(
        self, preprocessor: ImagePreprocessor, denoiser: Denoiser, decoder: LatentDecoder, options: Options
    ) -> None:
        """Own the denoiser and the decoder: `close` closes them."""
        super().__init__(denoiser, options)
        self.preprocessor = preprocessor
        self.decoder = decoder

    def make_active(self, key: int, request: ImageRequest, sender: ImageSender) -> ActiveImageRequest:
        """Return the active request that `key` identifies; it has not started."""
        return ActiveImageRequest(key, request, sender, self)

    def close_decoder(self) -> None:
        """Drop the latents that are not decoded."""
        self.decoder.close()

    def count_image(self) -> None:
        """Count a decoded image. Called by the decoder's thread alone."""
        self.denoiser.stats.images += 1
