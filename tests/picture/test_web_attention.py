"""Attention patterns: all small, one large, every weight for the script, the strongest in a table."""

from __future__ import annotations

import json
import re

import numpy as np
import picture_samples as samples

from patchclamp.picture.web import attention


def test_the_first_pattern_is_large_and_chosen():
    drawn = attention.attention(samples.attention(3))
    assert drawn.count('aria-pressed="true"') == 1
    assert drawn.index('aria-pressed="true"') < drawn.index('aria-pressed="false"')
    assert "attention of L0H0" in drawn
    assert drawn.count("<button") == 3


def test_every_weight_is_there_to_four_decimals():
    picture = samples.attention(2)
    text = re.search(r'<script type="application/json">(.*?)</script>', attention.attention(picture))
    assert text
    for pattern, numbers in zip(picture.patterns, json.loads(text[1])["patterns"]):
        np.testing.assert_allclose(numbers["values"], pattern.weights, atol=6e-5)


def test_the_table_names_the_strongest_key():
    picture = samples.attention(1)
    drawn = attention.attention(picture)
    key = int(picture.patterns[0].weights[-1].argmax())
    last = drawn.rsplit("<tr>", 1)[1]
    assert picture.keys[key].strip() in last


def test_patterns_cost_little():
    assert len(attention.attention(samples.attention(6, 30))) < 80_000
