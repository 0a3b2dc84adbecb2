"""What callers refer to: pictures, documents and sounds, by URL or in the request itself.

The way of a reference: `media` is asked; `inline` or `fetching` (which asks `addresses`) turn the reference into
bytes; `sniffing` says what the bytes are; `pictures` checks a picture; `readers` hands a document or a sound to a
process of its own, where `reading` turns it into text or samples. This package knows no models, dialects or tensors.
"""
