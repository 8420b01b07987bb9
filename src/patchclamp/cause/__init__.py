"""Cause: who is responsible. Each file uses the nouns and the model, never another room."""
