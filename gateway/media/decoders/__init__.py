"""The process that decodes files: verifies images, turns documents into text and audio into samples.

`gateway.media.fork_server` starts it.
"""
