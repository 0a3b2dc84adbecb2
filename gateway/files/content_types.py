"""The content types of stored files, and their extensions."""

CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "json": "application/json",
    "bin": "application/octet-stream",
}
"""Content types by extension. None is of a kind that a browser would execute."""
EXTENSIONS = {content_type: end for end, content_type in CONTENT_TYPES.items()}


def content_type(file: str) -> str:
    """Return the content type of a file, by its id."""
    return CONTENT_TYPES.get(file.rpartition(".")[2], CONTENT_TYPES["bin"])
