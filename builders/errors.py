"""What can keep a model from being built. Every message is a sentence for the person who asked.

BuildError
├── RecipeError            the recipe, or what was asked on the command line, makes no sense
├── MissingDependency      the packages that builders need are not installed
├── SourceUnavailable      the weights cannot be had
├── UnsupportedModel       the exporter does not know this architecture, precision or target
├── NotEnoughSpace         the disk or the memory is too small for the model
├── RepositoryBusy         another build of the same model is running, or the repository cannot be written
├── ExportFailed           the exporter gave up
└── VerificationFailed     the engine does not answer as the source model does
"""


class BuildError(RuntimeError):
    """A build cannot be done; the message says why, in a sentence."""


class RecipeError(BuildError):
    """The recipe, or what was asked on the command line, makes no sense."""


class MissingDependency(BuildError):
    """The packages that builders need are not installed."""

    def __init__(self, package: str | None) -> None:
        super().__init__(
            f"Building needs the Python package {package!r}, which is not installed here. "
            "Install what builders need with: pip install 'tritonic[build]' -c constraints.txt"
        )


class SourceUnavailable(BuildError):
    """The weights cannot be had: no such folder, no network, no permission, or not a checkpoint."""


class UnsupportedModel(BuildError):
    """The exporter does not know this architecture, precision or target."""


class NotEnoughSpace(BuildError):
    """The disk or the memory is too small for the model."""


class RepositoryBusy(BuildError):
    """Another build of the same model is running, or the repository cannot be written."""


class ExportFailed(BuildError):
    """The exporter gave up; the message holds the end of what it said."""


class VerificationFailed(BuildError):
    """The engine does not answer as the source model does; the message holds the figures."""
