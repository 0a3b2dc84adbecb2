"""The checkpoint's own tokenizer."""

from pathlib import Path

from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read tokenizer.json. Raises `FileNotFoundError` or `ValueError` with a sentence that names the file."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare `Exception`
        raise ValueError(f"{path} is not a tokenizer: {error}.") from error
    # A checkpoint may ask for truncation or padding, which suit training and would cut a prompt in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
