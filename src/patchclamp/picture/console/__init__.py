"""Drawing pictures as lines of text: one file per family of pictures, put together by `picture/terminal.py`."""
