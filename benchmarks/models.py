"""The default models that the benchmarks measure: their folder names in the model repository."""

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"
IMAGE_MODEL = "shapes"
VIDEO_MODEL = "moving-shapes"
TRANSCRIPTION_MODEL = "whisper-base"
SPEECH_MODEL = "hibari"
