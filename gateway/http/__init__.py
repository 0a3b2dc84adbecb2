"""What the gateway needs of HTTP itself, whatever the callers speak: how bodies are read, and what they may cost."""
