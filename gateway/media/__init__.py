"""What callers refer to: pictures, documents and sounds, by URL or in the request itself.

The way of a reference: `media` is asked; `inline`, or `fetching` with `addresses` and `exchange`, turn the reference
into bytes, within what `allowance` leaves to the request; `sniffing` says what the bytes are; `readers` waits for one
of the `places` and hands them, through the `fork_server`, to a process of their own, where `reading` looks at a
picture, and turns a document into text and a sound into samples. This package knows no models, dialects or tensors.
"""
