"""Images, documents and audio of requests, by URL or inline.

The path of a reference: `loader` is the entry. `inline_data`, or `url_fetcher` with `ssrf` and `http_client`, turn the
reference into bytes, within the `budget` of the request. `sniffing` finds their type. `decoder_pool` waits for a slot
and passes the bytes through the `fork_server` to a process of their own, in which `decoders` verify an image, or turn a
document into text and audio into samples. This package knows no models, dialects or tensors.
"""
