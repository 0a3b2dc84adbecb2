"""Stopping at strings, however tokens cut them."""


class StopStrings:
    """Lets text through up to the first stop string, and holds back what might begin one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._max_length = max(map(len, stops), default=0)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string was met; after that, nothing may be fed."""
        if not self._stops:
            return text, False
        text = self._held + text
        self._held = ""
        met = [(place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0]
        if met:
            # The one that is complete first, as if characters came one by one: how tokens cut the text does not matter.
            return text[: min(met)[1]], True
        keep = self._partial_match_length(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back: no stop string can follow any more."""
        held, self._held = self._held, ""
        return held

    def _partial_match_length(self, text: str) -> int:
        """Characters at the end of `text` that begin a stop string."""
        for length in range(min(self._max_length - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
