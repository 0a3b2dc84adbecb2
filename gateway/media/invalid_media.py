"""The error for a file that cannot be used."""


class InvalidMedia(Exception):
    """A reference cannot be used. The message follows "Invalid value for 'field': " and has no full stop."""
