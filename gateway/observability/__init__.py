"""How the process of the gateway itself fares: its event loop, and what holds it."""
