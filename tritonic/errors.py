"""The failures that the command reports as a sentence, without a traceback. Everything else is a bug."""


class TritonicError(RuntimeError):
    """Something outside of this program is not as it should be; the message says what, and what to do about it."""
