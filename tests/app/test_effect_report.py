"""The report of effects: its numbers are those of the library, its sentences say no more, and chance has its say."""

import pytest
import torch

import patchclamp as pc
from patchclamp.app.asked import Source, WrongOption, read
from patchclamp.app.effect_report import HEADS, STREAM, How, effect_report, planned
from patchclamp.core.errors import UnknownSite

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = CLEAN.replace("John gave", "Mary gave")


@pytest.fixture(scope="module")
def one(town):
    return read(town, Source(CLEAN, CORRUPT))


@pytest.fixture(scope="module")
def many(town):
    return read(town, Source(task="town/ioi", count=8))


@pytest.fixture(scope="module")
def heads(many):
    return effect_report(many, How())


def test_one_pair_is_mapped_over_the_stream(town, one):
    report = effect_report(one, How())
    expected = pc.effects(town, CLEAN, CORRUPT, STREAM, pc.logit_diff(" Mary", " John"))
    assert torch.tensor(report.data["grids"][STREAM]["values"]).equal(expected.values)
    assert "then in block" in report.page.sections[0].reading
    assert [s.title for s in report.page.sections] == ["The stream"]


def test_many_pairs_are_mapped_over_heads_with_intervals(town, many, heads):
    grid = heads.data["grids"][HEADS]
    metric = pc.logit_diff(many.answers, many.wrongs)
    expected = pc.effects(town, many.clean, many.corrupt, HEADS, metric)
    assert torch.tensor(grid["values"]).equal(expected.values)
    assert torch.tensor(grid["details"]["low"]).equal(expected.details["low"])
    assert torch.tensor(grid["details"]["p"]).equal(expected.p_values().values)
    best = expected.top(1)[0][0]
    assert f"restores most at block {best['layer']} head {best['head']} (+" in heads.page.sections[0].reading
    assert "The ranges are 95 % intervals over prompts." in heads.page.sections[0].reading


def test_what_chance_would_not_do_is_listed(heads):
    p = torch.tensor(heads.data["grids"][HEADS]["details"]["p"])
    layer, head = divmod(int(torch.tensor(heads.data["grids"][HEADS]["values"]).flatten().abs().argmax()), p.shape[1])
    chance = heads.page.sections[1]
    assert f"Corrected for all 32 cells, {int((p < 0.05).sum())} of them differ" in chance.reading
    (table,) = chance.pictures
    assert len(table.rows) == int((p < 0.05).sum()) and table.rows[0][0] == f"block {layer} head {head}"


def test_few_prompts_say_nothing_about_chance(town):
    report = effect_report(read(town, Source(task="town/ioi", count=3)), How())
    assert report.page.sections[0].left_out == "With fewer than 5 prompts nothing is said about chance."


def test_noising_destroys_what_denoising_restores(one):
    restored, destroyed = (effect_report(one, How(noising=n)).data["grids"][STREAM] for n in (False, True))
    assert restored["baseline"] == pytest.approx(destroyed["baseline"], abs=1e-4)
    gap = restored["baseline"]["clean"] - restored["baseline"]["corrupt"]
    assert restored["values"][3][-1] == pytest.approx(gap, abs=1e-3)
    assert destroyed["values"][3][-1] == pytest.approx(-gap, abs=1e-3)


@pytest.mark.parametrize(
    ("by", "said"), [("zero", "holds nothing"), ("mean", "its mean"), ("resample", "another prompt's"), ("noise", "noise")]
)
def test_places_can_be_taken_away(many, by, said):
    report = effect_report(many, How(by=by))
    (grid,) = report.data["grids"].values()
    assert set(grid["details"]) == {"low", "high", "p"}
    assert said in report.page.sections[0].reading
    if by != "noise":
        layer, head = divmod(int(torch.tensor(grid["values"]).flatten().abs().argmax()), 8)
        assert f"block {layer} head {head}" in report.page.sections[0].reading


def test_gradients_are_called_estimates(one):
    report = effect_report(one, How(estimate="gradient"))
    assert "These are estimates from gradients" in report.page.sections[0].reading


def test_several_patterns_are_several_sections(one):
    report = effect_report(one, How(sites=(STREAM, HEADS, "blocks.1.mlp.act[neuron=0:4]")))
    assert [s.title for s in report.page.sections] == ["The stream", "Heads", "Neurons"]
    assert list(report.data["grids"]) == [STREAM, HEADS, "blocks.1.mlp.act[neuron=0:4]"]


def test_it_says_beforehand_what_it_will_do(one, many):
    assert list(planned(one, How())) == [f"{STREAM}: 60 cells on 1 prompt, about 1 batched pass"]
    assert next(planned(many, How(estimate="gradient"))) == f"{HEADS}: 32 cells on 8 prompts, two passes and a gradient"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (How(metric="logits"), '--metric is one of .* not "logits"'),
        (How(by="men"), 'Did you mean "mean"'),
        (How(window=0), "one or more; got 0"),
        (How(by="zero", noising=True), "--noising is about patching one run into another; it does not go with --by zero"),
        (How(by="zero", sever=("mlp",)), "--sever is about patching"),
        (How(sever=("mpl",)), 'Did you mean "mlp"'),
        (How(estimate="gradient", window=2), "not of a window of layers; leave it out to patch exactly"),
        (How(estimate="gradient", metric="rank"), "not of a rank, which has none"),
    ],
)
def test_options_that_do_not_go_together(how, said):
    with pytest.raises(WrongOption, match=said):
        how.checked()


def test_a_pattern_is_a_pattern():
    with pytest.raises(UnknownSite, match="is not a site"):
        How(sites=("blocks.*.out[pos=*",)).checked()


def test_prompts_that_do_not_differ_in_their_answer(town):
    asked = read(town, Source("Mary Holt works as a", "Mary Holt works as the", " doctor", " baker"))
    asked = type(asked)(town, asked.clean, asked.corrupt, asked.answers, [], "x")
    flat = effect_report(asked, How(metric="rank"))
    assert flat.page.sections[0].reading
