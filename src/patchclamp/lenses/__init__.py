"""Lenses: what the stream would say if it were read out here."""
