"""The error for a file that cannot be used."""


class InvalidMedia(Exception):
    """A referenced file cannot be used. The message has no full stop: it follows "Invalid value for 'field': "."""
