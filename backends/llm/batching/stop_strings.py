"""Stop strings: cut the answer before the first one, even if it spans several tokens."""


class StopStrings:
    """Passes text on up to the first stop string, and holds back the end of a text that may begin one."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._max_length = max(map(len, stops), default=0)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text that may be sent now, and whether a stop string was found; no text may be fed after that."""
        if not self._stops:
            return text, False
        text = self._held + text
        self._held = ""
        matches = [(position + len(stop), position) for stop in self._stops if (position := text.find(stop)) >= 0]
        if matches:
            # The match that ends first, as if characters came one by one: token boundaries make no difference.
            return text[: min(matches)[1]], True
        num_held = self._partial_match_length(text)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held], False

    def flush(self) -> str:
        """Return the text held back, when no more text will follow."""
        text, self._held = self._held, ""
        return text

    def _partial_match_length(self, text: str) -> int:
        """Count the characters at the end of `text` that begin a stop string."""
        for length in range(min(self._max_length - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
