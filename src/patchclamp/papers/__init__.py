"""Papers: what was claimed, how it is measured here, and what came out.

Each file but `claims.py` and `shelf.py` is one paper, or one question that several papers answer. The room has not the name
of its noun, since `patchclamp.paper` would then be a module.
"""
