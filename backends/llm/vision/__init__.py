"""Images: from files in base64 to the embeddings that stand for them in a prompt."""
