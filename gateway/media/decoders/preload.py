"""Loading of the libraries of a task, before a child is forked for it."""

import importlib
from collections.abc import Mapping

from gateway.media.sniffing import OLE, PDF, ZIP

_MODULES: dict[str, tuple[str, ...]] = {
    "image": (
        "gateway.media.decoders.images", "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin",
        "PIL.PngImagePlugin", "PIL.WebPImagePlugin",
    ),
    "first_frame": (
        "gateway.media.decoders.pictures", "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.ImageOps",
        "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin",
    ),
    "compose": (
        "gateway.media.decoders.compositions", "PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.ImageOps",
        "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin",
    ),
    "clip": ("gateway.media.decoders.clip", "av", "PIL.ImageOps", "PIL.JpegImagePlugin"),
    "last_frame": ("gateway.media.decoders.video", "av", "PIL.ImageOps", "PIL.PngImagePlugin"),
    "preview": ("gateway.media.decoders.video", "av", "PIL.JpegImagePlugin", "PIL.WebPImagePlugin"),
    "audio": ("gateway.media.decoders.audio", "av"),
    "encode": ("gateway.media.encoders.stream",),
    "recording": ("gateway.media.decoders.audio", "av"),
    "document": ("gateway.media.decoders.documents",),
    "percent_decode": ("gateway.media.decoders.percent_encoding",),
    PDF: ("pypdfium2",),
    ZIP: ("defusedxml", "gateway.media.decoders.html_pages", "mammoth", "pptx", "python_calamine"),
    OLE: ("python_calamine",),
    "text/plain": ("charset_normalizer", "gateway.media.decoders.html_pages"),
}  # fmt: skip
_loaded: set[str] = set()


def preload(task: Mapping[str, object]) -> bool:
    """Import the modules that `task` needs. Return whether any were new. Raises `ImportError`."""
    kinds = {str(task["task"]), str(task.get("media_type", ""))} - _loaded
    names = [name for kind in kinds for name in _MODULES.get(kind, ())]
    _loaded.update(kinds & _MODULES.keys())
    for name in names:
        importlib.import_module(name)
    return bool(names)
