"""Activating examples: those of a naive loop over every text, one pass, as many as asked for, the same after an interruption."""

import pytest
import torch

import patchclamp as pc
import planted_neurons as planted
from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.model.activating import BANDS, Activating, activating, read
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as world

SITE = "blocks.1.mlp.act[neuron=*]"


@pytest.fixture(scope="module")
def corpus():
    stream = documents(world(0), "examples")
    return [next(stream) for _ in range(150)]


@pytest.fixture(scope="module")
def found(town, corpus):
    return activating(town, SITE, iter(corpus), top=5, lot=2)


def same(a: Activating, b: Activating) -> bool:
    tables = [(getattr(a, n)[k], getattr(b, n)[k]) for n in ("top", "bottom", "lot") for k in getattr(a, n)]
    equal = all(torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)) for x, y in [*tables, (a.count, b.count)])
    return equal and a.seen == b.seen and a.texts == b.texts


def test_the_top_and_the_bottom_are_those_of_a_naive_loop(town, corpus, found):
    runs = [town.run(text, SITE.partition("[")[0], logits=False)["blocks.1.mlp.act"][0] for text in corpus]
    for unit in (0, 17, 200):
        best = sorted(((float(r[:, unit].max()), -n, int(r[:, unit].argmax())) for n, r in enumerate(runs)), reverse=True)[:5]
        assert [-n for _, n, _ in best] == found.top["prompt"][unit].tolist()
        assert found.top["value"][unit].tolist() == pytest.approx([v for v, _, _ in best], abs=1e-4)
        assert found.top["pos"][unit].tolist() == [pos for _, _, pos in best]
        worst = min((float(r[:, unit].min()), n) for n, r in enumerate(runs))
        assert (float(found.bottom["value"][unit, 0]), int(found.bottom["prompt"][unit, 0])) == pytest.approx(worst, abs=1e-4)
    assert found.seen == {"prompts": 150, "tokens": sum(len(r) for r in runs)}


def test_the_histogram_counts_every_token(town, corpus, found):
    values = torch.cat([town.run(text, "blocks.1.mlp.act", logits=False)["blocks.1.mlp.act"][0, :, 17] for text in corpus])
    edges = found.edges(17)
    assert found.count[17].sum() == len(values) and len(edges) == 2 * BANDS + 1
    for band in range(
        1, 2 * BANDS - 1
    ):  # the outer ones hold whatever lies beyond, and a value on an edge may fall to either side
        inside = int(((values > edges[band]) & (values <= edges[band + 1])).sum())
        assert abs(int(found.count[17, band]) - inside) <= (1 if band != BANDS - 1 else len(values))
    high = float((values > 0.5 * found.top["value"][17, 0]).float().mean())
    assert float(found.active(0.5)[17]) == pytest.approx(high, abs=0.01)


def test_an_example_is_read_again_at_all_its_tokens(town, corpus, found):
    example = found.examples(town, 17)[0]
    assert example.value == max(example.values) == pytest.approx(float(found.top["value"][17, 0]), abs=1e-4)
    assert "".join(example.words).replace("<bos>", "").strip() == corpus[example.prompt]
    for some in found.quantiles(town, 17):
        assert len({e.prompt for e in some}) == len(some)
    half = found.band(town, 17, 0.4, 0.7)
    assert all(0.25 < e.value / example.value < 0.85 for e in half)


def test_what_is_kept_does_not_grow_with_the_stream(town, corpus):
    site = "blocks.1.mlp.act[neuron=7:9]"
    few, many = (activating(town, site, corpus * times, top=3, lot=1) for times in (1, 3))
    assert len(many.texts) <= 2 * (2 * 3 + 2 * BANDS) and many.seen["prompts"] == 450
    assert torch.allclose(few.top["value"][:, 0], many.top["value"][:, 0], atol=1e-5)


def test_of_wide_dictionaries_fewer_texts_are_run_at_once(town, corpus, found, monkeypatch):
    sizes = []
    monkeypatch.setattr("patchclamp.model.activating.ROOM", 384 * 40 * 5)
    monkeypatch.setattr("patchclamp.model.activating.read", lambda m, s, ids, a: sizes.append(len(ids)) or read(m, s, ids, a))
    again = activating(town, SITE, corpus, top=5, lot=2)
    assert max(sizes) == 16 and sum(sizes) == 150 and len(sizes) > 15
    assert torch.allclose(again.top["value"], found.top["value"], atol=1e-4)
    assert (again.count - found.count).abs().sum() <= 0.001 * found.count.sum()  # a value on an edge may fall to either side


def test_every_text_of_a_band_is_as_likely_to_be_drawn(gpt2):
    texts = torch.randint(99, (60, 3), generator=torch.Generator().manual_seed(0)).tolist()
    direction = torch.zeros(gpt2.width)  # all texts in one band
    drawn = torch.zeros(60)
    for seed in range(40):
        found = activating(gpt2, "blocks.0.out", texts, along=direction, lot=5, seed=seed)
        drawn[found.lot["prompt"][0, BANDS]] += 1
    assert drawn.sum() == 200 and drawn.max() <= 11 and drawn[:30].sum() > 70 and drawn[30:].sum() > 70


def test_stopped_and_begun_again_it_is_the_same(town, corpus, found, tmp_path):
    def stopping():
        yield from corpus[:70]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        activating(town, SITE, stopping(), top=5, lot=2, folder=tmp_path / "work")
    again = activating(town, SITE, iter(corpus), top=5, lot=2, folder=tmp_path / "work")
    assert same(again, found)
    with pytest.raises(NotSaved, match="their top was 5, and is 6 now"):
        activating(town, SITE, corpus, top=6, lot=2, folder=tmp_path / "work")
    (tmp_path / "work" / "activating.safetensors").write_text("{")
    with pytest.raises(NotSaved, match="delete it to begin anew"):
        activating(town, SITE, corpus, top=5, lot=2, folder=tmp_path / "work")


def test_a_planted_bigrams_top_twenty_all_match():
    model = planted.model()
    found = activating(model, "blocks.0.mlp.act[neuron=*]", planted.texts(300, [planted.BIGRAM]))
    examples = found.examples(model, 0)
    assert len(examples) == 20 and all(e.ids[e.pos - 1 : e.pos + 1] == planted.BIGRAM for e in examples)
    assert all(e.value == pytest.approx(1, abs=1e-4) for e in examples)
    control = found.examples(model, 4)
    assert sum(e.ids[max(e.pos - 1, 0) : e.pos + 1] == planted.BIGRAM for e in control) < 15


def test_heads_directions_and_latents_are_units_too(town, corpus):
    z = town.run(corpus[0], "blocks.1.attn.z")["blocks.1.attn.z"][0]
    heads = read(town, "blocks.1.attn.z[head=*]", corpus[:1])[0]
    assert torch.allclose(heads, z.norm(dim=-1), atol=1e-5)
    along = torch.randn(2, town.width, generator=torch.Generator().manual_seed(0))
    stream = town.run(corpus[0], "blocks.1.out")["blocks.1.out"][0]
    assert torch.allclose(read(town, "blocks.1.out", corpus[:1], along)[0], stream @ along.T, atol=1e-4)

    class Doubled:
        def encode(self, x):
            return torch.cat([x, -x], -1).relu()

        def decode(self, latents):
            return latents[..., : town.width] - latents[..., town.width :]

    spliced = town.edit(pc.splice("blocks.1.out", Doubled()))
    latents = read(spliced, "blocks.1.out.latents[latent=*]", corpus[:1])[0]
    assert torch.allclose(latents[:, : town.width], stream.relu(), atol=1e-4)
    assert activating(spliced, "blocks.1.out.latents[latent=3]", corpus[:4]).units == 1


def test_it_shows_itself(town, found):
    page = found.page(town, 17)
    assert page.sections[0].title == "How active" and "Most active" in page.html() and len(page.sections) > 3
    page.show()


def test_mistakes_are_told(town, corpus, found):
    for site in ("blocks.1.mlp.act", "blocks.*.mlp.act[neuron=*]", "blocks.1.mlp.act[neuron=3, pos=1]"):
        with pytest.raises(WrongAxis, match="name one place, and its units by one axis"):
            activating(town, site, corpus)
    with pytest.raises(WrongAxis, match='has no axis "head"'):
        activating(town, "blocks.1.mlp.act[head=*]", corpus)
    with pytest.raises(ShapeMismatch, match="is 128 wide, and the directions 5"):
        activating(town, "blocks.1.out", corpus, along=torch.zeros(5))
    with pytest.raises(WrongPrompt, match="no text"):
        activating(town, SITE, [])
    with pytest.raises(WrongAxis, match="384 units, 0 to 383; 500 is outside"):
        found.examples(town, 500)
    with pytest.raises(WrongAxis, match='not "best"'):
        found.examples(town, 0, "best")
    with pytest.raises(WrongAxis, match="one or more"):
        activating(town, SITE, corpus, top=0)
