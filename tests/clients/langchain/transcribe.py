"""LangChain's loader of recordings: transcribes a file through a gateway, and prints its documents as JSON.

python transcribe.py FILE http://127.0.0.1:1088/v1 MODEL [RESPONSE_FORMAT]
"""

import contextlib
import json
import sys

import imageio_ffmpeg
import pydub
from langchain_community.document_loaders.blob_loaders import Blob
from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser


def main(path: str, base_url: str, model: str, response_format: str | None = None) -> None:
    """Print the documents: a list of objects with `text`, `source` and `chunk`."""
    # The loader cuts a recording into parts of 20 minutes, and has ffmpeg encode each as MP3.
    pydub.AudioSegment.converter = imageio_ffmpeg.get_ffmpeg_exe()
    parser = OpenAIWhisperParser(
        api_key="none", base_url=base_url, model=model, language="en", response_format=response_format, temperature=0
    )
    with contextlib.redirect_stdout(sys.stderr):  # the loader prints its progress
        documents = list(parser.lazy_parse(Blob.from_path(path)))
    json.dump([{"text": document.page_content, **document.metadata} for document in documents], sys.stdout)


main(*sys.argv[1:])
