"""A process that reads one file: a document into text, a sound into samples. `gateway.media.readers` starts it."""
