"""Pictures: from files in base64 to the vectors that stand for them in a prompt."""
