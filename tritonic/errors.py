"""The base class of expected failures: the command prints their message without a traceback. Others are bugs."""


class TritonicError(RuntimeError):
    """Something outside this program is wrong. The message says what it is and what to do."""
