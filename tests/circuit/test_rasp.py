"""The little language: what programs mean, run in Python."""

from fractions import Fraction

import pytest

from patchclamp.circuit.rasp import (
    aggregate,
    constant,
    domain,
    evaluate,
    everywhere,
    indices,
    is_number,
    map,
    mean,
    select,
    selector_width,
    tokens,
    varies,
)
from patchclamp.core.errors import Unserved


def test_a_token_looks_where_key_and_query_agree():
    assert evaluate(selector_width(select(tokens, tokens)), "abca") == [2, 1, 1, 2]
    assert evaluate(selector_width(select(tokens, tokens) & select(indices, indices, int.__lt__)), "abca") == [0, 0, 0, 1]


def test_what_is_found_nowhere_is_the_default():
    ahead = map(lambda i: i + 1, indices)
    assert evaluate(aggregate(select(indices, ahead), tokens), "abc") == ["b", "c", None]
    assert evaluate(aggregate(select(indices, ahead), tokens, default="."), "abc") == ["b", "c", "."]


def test_means_are_fractions_and_zero_of_nothing():
    hit = map(lambda t: int(t == "a"), tokens)
    assert evaluate(mean(everywhere(), hit), "aab") == [Fraction(2, 3)] * 3
    assert evaluate(mean(select(tokens, constant("z")), hit), "aab") == [0, 0, 0]
    assert is_number(mean(everywhere(), hit)) and not is_number(selector_width(everywhere()))


def test_a_domain_holds_every_value_there_can_be():
    assert domain(selector_width(everywhere()), "ab", 3) == (0, 1, 2, 3)
    assert domain(aggregate(everywhere(), tokens), "ab", 3) == ("a", "b", None)
    sign = map(lambda t: 1 if t == "a" else -1, tokens)
    assert [str(v) for v in domain(mean(everywhere(), sign), "ab", 3)] == ["-1", "-1/3", "0", "1/3", "1"]


def test_what_follows_from_the_length_alone_is_known():
    width = selector_width(everywhere())
    assert not varies(width) and not varies(map(lambda n, i: n - i, width, indices))
    assert varies(selector_width(select(tokens, tokens))) and varies(aggregate(select(indices, indices), tokens))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda n: select(n, indices), "the keys of a selection are one of finitely many things; map the number"),
        (lambda n: select(indices, n), "the queries of a selection"),
        (lambda n: aggregate(everywhere(), n), "use mean instead of aggregate"),
        (lambda n: map(max, n, indices), "a map of several variables takes none; map it by itself first"),
        (lambda n: map(max), "at least one variable"),
        (lambda n: evaluate(mean(everywhere(), tokens), "ab"), "mean tokens takes numbers; tokens has the value 'a'"),
        (lambda n: evaluate(aggregate(everywhere(), tokens), "ab"), "at token 0 tokens there selects the values ['a', 'b']"),
        (lambda n: domain(mean(everywhere(), map(lambda i: 7**i, indices)), "ab", 9), "takes more than 512 values"),
    ],
)
def test_what_has_no_meaning_says_so(make, said):
    number = mean(everywhere(), indices, name="middle")
    with pytest.raises(Unserved) as caught:
        make(number)
    assert said in str(caught.value)
