"""The grammar of sites."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchclamp.core.errors import UnknownSite, WrongAxis
from patchclamp.core.site import Site, Span

PATHS = [f"blocks.{i}.{w}" for i in range(12) for w in ("in", "mid", "out", "attn.z", "attn.pattern", "mlp.out")]
PATHS += ["embed.out", "norm.out", "logits"]


@pytest.mark.parametrize(
    "text",
    ["blocks.9.attn.z[head=6, pos=-1]", "blocks.*.out[pos=*]", "blocks.4:8.mlp.act[neuron=*]", "blocks.-1.out", "logits",
     "blocks.:3.in", "encoder.blocks.3.attn.q", "@model.layers.3.self_attn.q_norm.out", "blocks.2.out.latents[latent=7]",
     "blocks.3.out[pos=10|-1|4]"],
)  # fmt: skip
def test_a_site_is_written_back_as_it_was_read(text):
    assert str(Site.parse(text)) == text


def test_a_site_parses_to_itself():
    site = Site.parse("blocks.3.out[pos=1]")
    assert Site.parse(site) is site


def test_stars_and_ranges_are_axes_path_first():
    assert Site.parse("blocks.*.attn.z[head=*]").stars == ("layer", "head")
    assert Site.parse("blocks.4:8.mlp.act[neuron=*, pos=-1]").stars == ("layer", "neuron")
    assert Site.parse("blocks.3.out").stars == ()
    assert Site.parse("blocks.3.*.out[pos=*]").stars == ("component", "pos")


def test_a_pattern_expands_to_the_places_there_are():
    assert Site.parse("blocks.*.out").expand(PATHS) == [f"blocks.{i}.out" for i in range(12)]
    assert Site.parse("blocks.4:6.out").expand(PATHS) == ["blocks.4.out", "blocks.5.out"]
    assert Site.parse("blocks.-1.out").expand(PATHS) == ["blocks.11.out"]
    assert Site.parse("blocks.-2:.in").expand(PATHS) == ["blocks.10.in", "blocks.11.in"]
    assert Site.parse("blocks.0.*.out").expand(PATHS) == ["blocks.0.mlp.out"]
    assert Site.parse("blocks.3.out").star_values("blocks.3.out") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("blocks.3.attn.patern", 'Did you mean "blocks.3.attn.pattern"?'),
        ("blocks.3.attn.patern", "Beside it: pattern z"),
        ("blocks.15.out", "It has 12 blocks, numbered 0 to 11."),
        ("blocks.-13.out", "It has 12 blocks"),
        ("bloks.3.out", 'Did you mean "blocks.3.out"?'),
        ("norm.in", 'Did you mean "norm.out"?'),
    ],
)
def test_an_unknown_site_names_the_nearest(text, says):
    with pytest.raises(UnknownSite) as caught:
        Site.parse(text).expand(PATHS, "gpt2")
    assert str(caught.value).startswith("UnknownSite: no site") and says in str(caught.value)
    assert "in gpt2" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("blocks.-:2.out", UnknownSite, "neither a name, a number, a range a:b nor *"),
        ("blocks..3", UnknownSite, "neither a name, a number, a range a:b nor *"),
        ("", UnknownSite, "is not a site"),
        ("blocks.3.out[pos]", UnknownSite, '"pos" is not axis=number'),
        ("blocks.3.out[pos=1", UnknownSite, 'must end the string with one "]"'),
        ("blocks.3.out[pos=1]x", UnknownSite, 'must end the string with one "]"'),
        ("blocks.3.out[]", UnknownSite, "is not axis=number"),
        ("blocks.3.out[pos=1, pos=2]", WrongAxis, "twice"),
        ("blocks.3.out[pos=1|]", UnknownSite, "is not axis=number"),
        ("blocks.3.out[pos=1|*]", UnknownSite, "is not axis=number"),
        ("@model.norm", UnknownSite, 'end it with ".in" or ".out"'),
    ],
)
def test_what_is_not_in_the_grammar_is_said_so(text, error, says):
    with pytest.raises(error, match="(?s).*") as caught:
        Site.parse(text)
    assert says in str(caught.value)


def test_only_strings_are_sites():
    with pytest.raises(UnknownSite, match="a site is a string"):
        Site.parse(3)


def test_layer_is_the_block_of_a_concrete_site():
    assert Site.parse("blocks.9.attn.z").layer == 9
    assert Site.parse("encoder.blocks.2.out").layer == 2
    assert Site.parse("blocks.*.out").layer is None
    assert Site.parse("logits").layer is None


def test_at_replaces_an_index():
    assert str(Site.parse("blocks.3.out[pos=1]").at(pos=2)) == "blocks.3.out[pos=2]"
    assert str(Site.parse("blocks.3.out").at(pos=Span(1, 4))) == "blocks.3.out[pos=1:4]"
    assert str(Site.parse("blocks.3.out[pos=1]").bare()) == "blocks.3.out"


def test_an_entry_for_each_prompt_is_no_star():
    site = Site.parse("blocks.3.out[pos=10|-1]")
    assert site.index == (("pos", (10, -1)),) and site.stars == ()
    assert site == Site.parse("blocks.3.out").at(pos=(10, -1))


def test_transformer_lens_names_are_read_in_one_place():
    assert str(Site.from_transformer_lens("blocks.3.attn.hook_pattern")) == "blocks.3.attn.pattern"
    assert str(Site.from_transformer_lens("blocks.11.hook_resid_pre")) == "blocks.11.in"
    assert str(Site.from_transformer_lens("hook_embed")) == "embed.out"
    with pytest.raises(UnknownSite, match="hook_resid_post"):
        Site.from_transformer_lens("blocks.3.hook_resid_pots")


@given(st.text(alphabet="blocks.0123456789:*-|[]=, attn.zposheadin@_", max_size=40))
def test_any_string_is_a_site_or_a_clear_error(text):
    try:
        site = Site.parse(text)
    except (UnknownSite, WrongAxis) as error:
        assert text in str(error) or repr(text) in str(error) or error.args
    else:
        assert Site.parse(str(site)) == site
