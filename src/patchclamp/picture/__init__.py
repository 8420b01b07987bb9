"""Pictures: what to draw, as plain frozen data, and how to draw it in a terminal, on a page, in a notebook.

The data types are here; the renderers (`terminal`, `html`, `notebook`) load when a picture is first shown.
"""

from patchclamp.picture.picture import (
    Attention,
    Bars,
    Heatmap,
    Image,
    Lines,
    Network,
    Node,
    Page,
    Pattern,
    Picture,
    Scale,
    Scatter,
    Section,
    Series,
    Table,
    Tokens,
)

__all__ = [
    "Attention",
    "Bars",
    "Heatmap",
    "Image",
    "Lines",
    "Network",
    "Node",
    "Page",
    "Pattern",
    "Picture",
    "Scale",
    "Scatter",
    "Section",
    "Series",
    "Table",
    "Tokens",
]
