"""Circuit: which subgraph does the work. Edges and their scores, circuits found and judged, circuits compiled.

Each file uses the nouns and the model, never another room.
"""
