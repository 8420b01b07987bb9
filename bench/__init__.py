"""Patchclamp beside its peers: how fast (`python -m bench.speed`), and whether they agree (`python -m bench.agree`)."""
