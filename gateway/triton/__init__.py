"""The gRPC client of Triton."""

import os

# grpcio reads this as it is imported, which tritonclient does below. Its handlers of fork(2) are for processes that use
# gRPC in the child. The children of the gateway call execve(2) at once, and the handlers would only delay them and log.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # below that, it logs each connection that a server closes
