"""Loading of a pipeline of videos."""

from pathlib import Path

from backends.diffusion.components import Components
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.pipeline_parts import Parameters, load_parts
from backends.diffusion.video.frame_decoder import FrameDecoder
from backends.diffusion.video.frontend import VideoFrontend
from backends.diffusion.video.mp4_file import find_encoders
from backends.diffusion.video.options import read_video_options
from backends.diffusion.video.preprocessor import VideoPreprocessor


def load_videos(folder: Path, config: PipelineConfig, parameters: Parameters, components: Components) -> VideoFrontend:
    """Return a frontend for a pipeline of videos.

    Raises `FileNotFoundError`, or `ValueError` with a sentence for people.
    """
    options = read_video_options(parameters, config.size_multiple, config.vae.temporal_factor)
    _check_references(config, options.references)
    encoder_names = find_encoders(options.encoder)
    parts = load_parts(folder, config, options, components)
    preprocessor = VideoPreprocessor(parts.family, parts.scheduler, parts.config, options, components)
    decoder = FrameDecoder(components, parts.config, parts.denoiser.stats)
    return VideoFrontend(preprocessor, parts.denoiser, decoder, options, encoder_names)


def _check_references(config: PipelineConfig, references: tuple[str, ...]) -> None:
    """Raise `ValueError` for references that the pipeline cannot take."""
    assert config.video is not None
    if "image" in references and (config.vae_encoder is None or config.video.image_conditioning == "none"):
        raise ValueError("The parameter references has image, which this pipeline cannot take.")
    if "frames" in references and (config.vae_encoder is None or config.video.vae_encoder_next is None):
        raise ValueError("The parameter references has frames, which this pipeline cannot take.")
