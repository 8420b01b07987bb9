"""The nouns. Knows torch, not transformers."""
