"""Vision-language models: an image encoder, and a text model that takes the encoder's vectors as tokens."""
