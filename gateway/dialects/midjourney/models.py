"""The models that carry out submissions, and the sizes of their pictures."""

from fractions import Fraction
from math import sqrt

from fastapi import Request

from gateway.dialects.midjourney.errors import Code, Refusal
from gateway.errors import RETRY_AFTER_SECONDS, ModelNotFound, Overloaded
from gateway.model_card.image_limits import ImageLimits, Size
from gateway.models.catalog import Catalog
from gateway.models.servers import Model
from gateway.operations.chat import Chat
from gateway.operations.operation import Operation

_NAMES = {"NIJI_JOURNEY": ("niji-journey", "midjourney")}
"""Names of models, or aliases, that draw the pictures of a bot, in the order of preference."""
_DEFAULT_NAMES = ("midjourney",)
_DEFAULT_SIZE = 1024
_DEFAULT_MULTIPLE = 8


def find(request: Request, operation: type[Operation], bot: str | None = None, preferred: str = "") -> Model:
    """Return a model for `operation`: `preferred`, the one that an alias gives to the bot, or the first by name.

    Raises `Refusal` if no model offers it, and `Overloaded` if no model is served at all.
    """
    catalog: Catalog = request.app.state.catalog
    offering = {model.name for model in catalog.models() if operation.operation in model.operations}
    for name in (preferred, *_NAMES.get(bot or "", _DEFAULT_NAMES)):
        try:
            model = catalog.get(name) if name else None
        except (ModelNotFound, Overloaded):
            continue
        if model and model.name in offering:
            return model
    return _required(request, catalog.first_model_for(operation), operation.phrase)


def find_seeing(request: Request) -> Model:
    """Return the first model, by name, that answers chats with images. Raises as `find` does."""
    catalog: Catalog = request.app.state.catalog
    seeing = (m for m in catalog.models() if Chat.operation in m.operations and "image" in m.modalities)
    return _required(request, next(seeing, None), "describe images")


def _required(request: Request, model: Model | None, phrase: str) -> Model:
    if model is not None:
        return model
    catalog: Catalog = request.app.state.catalog
    if not catalog.models():
        raise Overloaded("No model is ready.", retry_after=RETRY_AFTER_SECONDS)
    raise Refusal(Code.FAILURE, f"No model that can {phrase} is served.")


def size_of_ratio(ratio: Fraction, limits: ImageLimits) -> Size:
    """Return the size of pictures with this ratio of width and height, as near as the model comes to it."""
    width, height = limits.default_size or (_DEFAULT_SIZE, _DEFAULT_SIZE)
    area = width * height
    multiple = max(limits.size_multiple, _DEFAULT_MULTIPLE)
    sides = (sqrt(area * ratio), sqrt(area / ratio))
    wide, high = (max(multiple, round(side / multiple) * multiple) for side in sides)
    return limits.nearest_size(wide, high)


def canvas(way: str, size: Size, limits: ImageLimits) -> tuple[Size, tuple[int, int, int, int]]:
    """Return the canvas on which a picture of `size` is extended in one direction, and the box of the picture in it.

    The canvas is longer by half where the model generates that size. Otherwise it keeps its size, and the view moves by
    half of it.
    """
    horizontal = way in ("left", "right")
    size = size if limits.supports_size(*size) else limits.nearest_size(*size)
    width, height = size
    longer = (width + width // 2, height) if horizontal else (width, height + height // 2)
    fits = limits.supports_size(*longer) and (limits.max_size is not None or bool(limits.sizes))
    shift = (longer[0] - width, longer[1] - height)
    left, top = shift if way in ("left", "up") else (0, 0) if fits else (-shift[0], -shift[1])
    return longer if fits else size, (left, top, width, height)


def zoomed(scale: float, size: Size, limits: ImageLimits) -> tuple[Size, tuple[int, int, int, int]]:
    """Return a canvas of a picture's size, or the nearest that the model generates, and the box of the picture in it.

    The picture is in the centre, and smaller by `scale`, 1 to 2.
    """
    width, height = size if limits.supports_size(*size) else limits.nearest_size(*size)
    inner = max(1, round(width / scale)), max(1, round(height / scale))
    return (width, height), ((width - inner[0]) // 2, (height - inner[1]) // 2, *inner)
