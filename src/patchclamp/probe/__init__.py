"""Probes: what can be read from activations, and what is merely said about them."""
