"""Greater-than: every later year is right, and no other."""

import re
from itertools import islice
from random import Random

from patchclamp.task.greater_than import TEMPLATES, greater_than


def test_every_later_year_of_the_century_is_right_and_no_other():
    for pair in islice(greater_than(Random(0)), 300):
        (century, start), *_ = re.findall(r"(\d\d)(\d\d)", pair.clean)
        assert pair.clean.endswith(century)
        assert pair.answers == tuple(f"{year:02}" for year in range(int(start) + 1, 100))
        assert sorted(pair.wrongs) == [f"{year:02}" for year in range(1, int(start) + 1)]
        assert pair.wrong == start == pair.clean[slice(*pair.roles["start"])]


def test_corrupt_begins_in_the_first_year():
    for pair in islice(greater_than(Random(1)), 100):
        assert pair.corrupt[slice(*pair.corrupt_roles["start"])] == "01"
        assert re.sub(r"\d\d01", "", pair.corrupt) == re.sub(r"\d\d\d\d", "", pair.clean)


def test_all_templates_come_and_other_centuries_may():
    pairs = list(islice(greater_than(Random(2), centuries=["21"]), 200))
    assert {pair.kind for pair in pairs} == set(TEMPLATES)
    assert all(pair.clean.endswith("21") for pair in pairs)
