"""Loading of a checkpoint's tokenizer."""

from pathlib import Path

from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load `tokenizer.json`. Raises `FileNotFoundError` or `ValueError` with a sentence that names the file."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain `Exception`
        raise ValueError(f"{path} is not a tokenizer: {error}.") from error
    # A checkpoint may configure truncation or padding for its training; they would cut a prompt silently.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
