"""Why a reference cannot be used."""


class Unusable(Exception):
    """A reference that cannot be used. The message goes on after "Invalid value for 'field': ", without a full stop."""
