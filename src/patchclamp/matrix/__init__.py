"""Weights without data: what heads and neurons would do with any token, read off the matrices alone."""
