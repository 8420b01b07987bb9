"""Matrices as images: real PNGs, with palettes for light and dark, and numbers beside them."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib

import numpy as np
import picture_samples as samples

from patchclamp.picture import Image, colour
from patchclamp.picture.web import raster


def chunks(png: bytes) -> dict[bytes, bytes]:
    """The parts of a PNG, each checked against its checksum."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        found[kind] = body
        at += 12 + length
    return found


def images(drawn: str) -> list[dict[bytes, bytes]]:
    return [chunks(base64.b64decode(data)) for data in re.findall(r"data:image/png;base64,([^\"]+)", drawn)]


def test_pixels_are_shades():
    levels = np.array([[0, 64], [colour.EMPTY, 32]])
    light, dark = images(raster.shaded(levels, "sequential"))
    assert zlib.decompress(light[b"IDAT"]) == bytes([0, 0, 64, 0, 65, 32])
    assert light[b"IDAT"] == dark[b"IDAT"]
    assert light[b"PLTE"][:3].hex() == colour.shades("sequential", "light")[0][1:]
    assert dark[b"PLTE"][:3].hex() == colour.shades("sequential", "dark")[0][1:]


def test_a_missing_value_is_transparent():
    [light, _] = images(raster.shaded(np.array([[colour.EMPTY]]), "diverging"))
    assert light[b"tRNS"][zlib.decompress(light[b"IDAT"])[1]] == 0


def test_an_image_keeps_its_pixels():
    [png] = images(raster.image(Image(np.array([[[0.0, 0.5, 1.0], [2.0, -1.0, np.nan]]]))))
    assert struct.unpack(">II", png[b"IHDR"][:8]) == (2, 1)
    assert zlib.decompress(png[b"IDAT"]) == bytes([0, 0, 128, 255, 255, 0, 0])


def test_few_pixels_are_enlarged_and_many_are_not():
    assert 'width="256" height="256" class="pixels"' in raster.image(Image(np.ones((8, 8))))
    assert 'width="300" height="200">' in raster.image(Image(np.ones((200, 300))))


def test_the_numbers_travel_along():
    picture = samples.effects(70, 70)
    text = re.search(r'<script type="application/json">(.*?)</script>', raster.heatmap(picture))
    assert text
    numbers = json.loads(text[1])
    np.testing.assert_allclose(numbers["values"], picture.values, rtol=1e-3)
    assert numbers["axes"] == ["layer", "head"]


def test_labels_thin_out_where_cells_are_small():
    def count(columns: int) -> int:
        levels = np.zeros((10, columns), dtype=int)
        drawn = raster.chart(levels, "sequential", ["r"] * 10, ["c"] * columns, "about")
        return drawn.split('class="side"')[0].count("<bdi")

    assert count(20) == 20
    assert count(200) < 70


def test_cells_shrink_with_their_number():
    assert raster.cell_size(10, 10) == 22
    assert 2 <= raster.cell_size(1000, 1000) < 5
