"""Decoding of audio into samples."""

from io import BytesIO
from itertools import chain

from gateway.media.invalid_media import InvalidMedia

SAMPLE_RATE = 16_000
"""Samples a second."""


def decode_audio(data: bytes, container: str, *, max_seconds: float) -> bytes:
    """Return mono float32 samples, little-endian, at `SAMPLE_RATE`. `container` is FFmpeg's name of the format.

    Raises `InvalidMedia`, and `av.FFmpegError` for damaged files.
    """
    import av

    max_bytes = int(max_seconds * SAMPLE_RATE) * 4
    # FFmpeg must not guess the format: some formats are lists of other files and URLs, which it would open.
    with av.open(BytesIO(data), "r", format=container) as file:
        if not file.streams.audio:
            raise InvalidMedia("the file has no audio track")
        # FFmpeg mixes integers without overflow, as the training data of speech models were mixed, but floats louder.
        mixer = av.AudioResampler(format="s32", layout="mono", rate=SAMPLE_RATE)
        converter = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        found = bytearray()
        for frame in chain(file.decode(audio=0), [None]):
            for mixed in mixer.resample(frame):
                for part in converter.resample(mixed):
                    found += bytes(part.planes[0])[: part.samples * 4]
            if len(found) > max_bytes:
                raise InvalidMedia(f"the audio is longer than the limit of {max_seconds:g} seconds")
    if not found:
        raise InvalidMedia("the audio track is empty")
    return bytes(found)
