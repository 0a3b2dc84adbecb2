"""The default models that the benchmarks measure, by their folders in the model repository."""

CHAT_MODEL = "smollm2-135m-instruct"
EMBEDDING_MODEL = "all-minilm-l6-v2"
IMAGE_MODEL = "shapes"
