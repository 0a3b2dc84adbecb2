"""The libraries that a task needs, loaded before a child is forked for it."""

import importlib
from collections.abc import Mapping

from gateway.media.sniffing import OLE, PDF, ZIP

_NAMES: dict[str, tuple[str, ...]] = {
    "picture": (
        "gateway.media.reading.picture", "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin",
        "PIL.PngImagePlugin", "PIL.WebPImagePlugin",
    ),
    "sound": ("gateway.media.reading.sound", "av"),
    "document": ("gateway.media.reading.documents",),
    "unquote": ("gateway.media.reading.escapes",),
    PDF: ("pypdfium2",),
    ZIP: ("defusedxml", "gateway.media.reading.markup", "mammoth", "pptx", "python_calamine"),
    OLE: ("python_calamine",),
    "text/plain": ("charset_normalizer", "gateway.media.reading.markup"),
}  # fmt: skip
_loaded: set[str] = set()


def load(task: Mapping[str, object]) -> bool:
    """Load what `task` needs. Returns whether there was anything to load; a library that is missing is not."""
    kinds = {str(task["task"]), str(task.get("media_type", ""))} - _loaded
    names = [name for kind in kinds for name in _NAMES.get(kind, ())]
    _loaded.update(kinds & _NAMES.keys())
    for name in names:
        importlib.import_module(name)
    return bool(names)
