"""Encoders of speech. They run in child processes of the fork server (`gateway.media.decoders`), like the decoders: a
crash of a codec ends one answer, and the event loop never waits for one."""
