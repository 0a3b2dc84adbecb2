"""Language models that see: the encoder of their pictures, and the text model that takes its vectors."""
