"""A process that reads one file: a document into text, a sound into samples. `gateway.media.decoder_pool` starts it."""
