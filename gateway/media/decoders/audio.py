"""Sounds into samples."""

from io import BytesIO
from itertools import chain

from gateway.media.invalid_media import InvalidMedia

SAMPLE_RATE = 16_000
"""Samples a second."""


def decode_audio(data: bytes, container: str, *, max_seconds: float) -> bytes:
    """Return mono float32 samples, little endian, at `RATE`. `container` is FFmpeg's name of the file's format.

    Raises `Unusable`, and `av.FFmpegError` about broken files.
    """
    import av

    most = int(max_seconds * SAMPLE_RATE) * 4
    # The format is given, never guessed: among those FFmpeg would guess are lists of other files and URLs to open.
    with av.open(BytesIO(data), "r", format=container) as file:
        if not file.streams.audio:
            raise InvalidMedia("the file has no sound track")
        # FFmpeg mixes integers so that they never overflow, as every speech model was trained, but floats louder.
        mixer = av.AudioResampler(format="s32", layout="mono", rate=SAMPLE_RATE)
        converter = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        found = bytearray()
        for frame in chain(file.decode(audio=0), [None]):
            for mixed in mixer.resample(frame):
                for part in converter.resample(mixed):
                    found += bytes(part.planes[0])[: part.samples * 4]
            if len(found) > most:
                raise InvalidMedia(f"the sound is longer than this service takes, {max_seconds:g} seconds")
    if not found:
        raise InvalidMedia("the file holds no sound")
    return bytes(found)
