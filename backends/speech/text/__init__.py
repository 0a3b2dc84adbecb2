"""From a text to phonemes: checks, readings of symbols and numbers, sentences, and grapheme-to-phoneme."""
