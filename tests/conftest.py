"""What all tests stand on."""

import signal

# Shells let what they start in the background ignore SIGINT, and what the tests start would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
