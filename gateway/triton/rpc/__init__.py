"""gRPC from asyncio: one HTTP/2 connection to a server, and calls on it that send one message and read many.

Tokens come one by one, and what each of them costs is what the gateway costs. gRPC's own library hands every message
through three threads; here it stays in the event loop (docs/decisions/0007-grpc-in-the-event-loop.md has the figures).

https://www.rfc-editor.org/rfc/rfc9113 (HTTP/2), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
