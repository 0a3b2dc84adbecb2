"""Loading of a pipeline from its version folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from backends.diffusion.components import Components
from backends.diffusion.image_frontend import ImageFrontend
from backends.diffusion.image_preprocessor import ImagePreprocessor
from backends.diffusion.latent_decoder import LatentDecoder
from backends.diffusion.options import read_options
from backends.diffusion.pipeline_config import PipelineConfig, read_pipeline_config
from backends.diffusion.pipeline_parts import Parameters, load_parts
from backends.diffusion.stats import Stats

if TYPE_CHECKING:
    from backends.diffusion.video.frontend import VideoFrontend


def load_pipeline(
    folder: Path, parameters: Parameters, components: Components
) -> "tuple[ImageFrontend | VideoFrontend, Stats]":
    """Return a frontend for the pipeline in `folder`, and its stats.

    Raises `FileNotFoundError`, or `ValueError` with a sentence for people.
    """
    config = read_pipeline_config(folder)
    load = load_images if config.video is None else _load_videos
    frontend = load(folder, config, parameters, components)
    return frontend, frontend.denoiser.stats


def load_images(folder: Path, config: PipelineConfig, parameters: Parameters, components: Components) -> ImageFrontend:
    """Return a frontend for a pipeline of images. Raises what `load_pipeline` does."""
    options = read_options(parameters, config.size_multiple)
    parts = load_parts(folder, config, options, components)
    preprocessor = ImagePreprocessor(parts.family, parts.scheduler, parts.config, options, components)
    return ImageFrontend(preprocessor, parts.denoiser, LatentDecoder(components, parts.config), options)


def _load_videos(
    folder: Path, config: PipelineConfig, parameters: Parameters, components: Components
) -> "VideoFrontend":
    try:
        from backends.diffusion.video.loading import load_videos
    except ImportError as error:  # pipelines of images do without PyAV
        raise ValueError(f"Videos need the package av, which the extra `video` installs: {error}.") from error
    return load_videos(folder, config, parameters, components)
