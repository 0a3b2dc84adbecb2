"""Why a reference cannot be used."""


class InvalidMedia(Exception):
    """A reference that cannot be used. The message goes on after "Invalid value for 'field': ", without a full stop."""
