"""A gRPC client in the event loop: one HTTP/2 connection to a server, whose calls send one message and read many.

Tokens come one by one, so the cost of a message is the cost of the gateway. grpcio passes every message through three
threads; this client does not (docs/decisions/0007-grpc-in-the-event-loop.md has the figures).

https://www.rfc-editor.org/rfc/rfc9113 (HTTP/2), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
