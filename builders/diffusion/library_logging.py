"""Silence the libraries, so that they do not write over the build's own progress."""


def silence_libraries() -> None:
    """Turn off the progress bars and warnings of diffusers and transformers in this process."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
