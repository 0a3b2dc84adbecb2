"""One piece spoken at any speed: by the model itself where it can, and stretched in time beyond."""

from collections.abc import Iterator

from backends.speech.families.acoustic_model import AcousticModel, Sound
from backends.speech.stretch import stretch

MIN_SPEED, MAX_SPEED = 0.25, 4.0


class PieceSpeaker:
    """Speaks pieces at speeds from `MIN_SPEED` to `MAX_SPEED`, without a change of the pitch."""

    def __init__(self, model: AcousticModel) -> None:
        self._model = model

    def __call__(self, phonemes: str, voice: str, speed: float) -> Sound:
        """Return the sound of a piece; see `scheduler.Speaker`."""
        low, high = self._model.speeds
        own = min(max(speed, low), high)
        sound = self._model.synthesize(phonemes, voice, own)
        if own == speed:
            return sound
        samples = stretch(sound.samples, speed / own, self._model.sample_rate)
        return Sound(samples, sound.num_tokens, sound.num_frames)

    def parts(self, phonemes: str, voice: str, speed: float) -> Iterator[Sound]:
        """Yield the sound of a piece in parts; whole if it has to be stretched. See `scheduler.Speaker`."""
        low, high = self._model.speeds
        if low <= speed <= high:
            yield from self._model.synthesize_parts(phonemes, voice, speed)
        else:
            yield self(phonemes, voice, speed)
