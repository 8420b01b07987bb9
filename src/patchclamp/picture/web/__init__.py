"""Drawing pictures as HTML and SVG: one file per family of pictures, put together by `picture/html.py`."""
