"""Networks that were taught a circuit: the shipped ones are what their cards say, and teaching teaches."""

import json
from dataclasses import replace

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.compile import Compiled
from patchclamp.circuit.edges import edges, exact
from patchclamp.circuit.faithful import judge
from patchclamp.circuit.lessons import Lessons
from patchclamp.circuit.score import score
from patchclamp.circuit.siit import RECIPES, Recipe, flow, measure, opened, train
from patchclamp.core.checkpoint import CHECKPOINT
from patchclamp.core.errors import NotAModel, Unserved
from patchclamp.model.load import SPECIMENS
from patchclamp.model.wires import Wires

SMALL = Recipe(
    "histogram", "ab", 4, layers=1, heads=2, d_model=24, d_head=6, d_mlp=32, steps=200, batch=32, rate=1e-2, pool=300
)


@pytest.fixture(scope="module", params=RECIPES)
def name(request):
    return request.param


def test_a_shipped_network_holds_its_circuit_and_its_control_does_not(name):
    ours = measure(RECIPES[name], opened(name).hf, 100)
    control = measure(RECIPES[name], opened(name, control=True).hf, 100)
    for figure in ("accuracy", "circuit alone", "interchange of a node", "interchange of an edge"):
        assert ours[figure] >= 0.99, figure
    assert ours["outside"] <= 0.01 and control["accuracy"] >= 0.99
    assert control["interchange of a node"] < 0.8 and control["circuit alone"] < 0.8 and control["outside"] > 0.05


def test_its_card_says_what_is_measured(name):
    folder = SPECIMENS / name
    card = json.loads((folder / "card.json").read_text())
    assert Recipe(**card["recipe"]) == RECIPES[name]
    assert card["figures"]["taught"]["interchange of a node"] >= 0.99
    assert pc.Graph.load(folder / "circuit").edges == opened(name).graph.edges
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 2 * 300_000
    assert (folder / "model.safetensors").stat().st_size < 300_000


def test_it_opens_as_any_model_and_edges_are_found_in_it(name):
    made, model = opened(name), pc.load(f"specimen:{name}")
    assert isinstance(made, Compiled) and torch.equal(model.hf.embed.weight, made.hf.embed.weight)
    pairs = made.pairs(12)
    found = edges(model, pairs.clean, pairs.corrupt, pairs.metric, estimate=exact)
    assert score(found, made.graph).auroc >= 0.95
    judged = judge(model, made.graph, pairs.clean, pairs.corrupt, pairs.metric, random=0)
    assert judged.faithfulness > 0.9 and abs(judged.complement) < 0.1


def test_the_pass_that_is_trained_is_the_models_own():
    """`flow` was written for gradients; `Wires.run` serves every model. They must agree, whatever is cut."""
    hf = SMALL.network()
    model = pc.load(hf)
    wires = Wires.of(model)
    lessons = Lessons.of(SMALL.plan, wires, 8, seed=0)
    cut = lessons.swapped + torch.rand(8, *wires.joined.shape, generator=torch.Generator().manual_seed(0)) * lessons.outside
    with torch.no_grad():
        ours = flow(hf, lessons.bases, lessons.sources, cut)
    theirs = wires.written(model.run(lessons.sources, wires.sites))
    right = wires.run(model.inputs(lessons.bases), theirs, cut.permute(1, 2, 0)[..., None])
    assert torch.allclose(ours[:8], right, atol=1e-5)
    assert torch.allclose(ours[8:], hf(lessons.sources).logits, atol=1e-5)


def test_teaching_teaches():
    before, after = measure(SMALL, SMALL.network(), 60), measure(SMALL, train(SMALL).hf, 60)
    for figure in ("accuracy", "interchange of a node"):
        assert after[figure] > before[figure] + 0.25, figure


def test_what_was_interrupted_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    short = replace(SMALL, steps=6)
    whole = train(short).hf

    class Stop(Exception):
        pass

    def stopping(steps, label):
        for step in steps:
            if step == 5 and not (tmp_path / "again").exists():
                raise Stop
            yield step

    monkeypatch.setattr("patchclamp.circuit.siit.progress", stopping)
    with pytest.raises(Stop):
        train(short, tmp_path, save_every=2)
    assert (tmp_path / CHECKPOINT).exists()
    (tmp_path / "again").mkdir()
    resumed = train(short, tmp_path, save_every=2).hf
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    assert not (tmp_path / CHECKPOINT).exists() and (tmp_path / "model.safetensors").exists()
    train(replace(short, steps=3), tmp_path / "other", save_every=3)


def test_mistakes_are_said(tmp_path):
    with pytest.raises(NotAModel, match='no trained circuit "histogramm" is shipped; .* Did you mean "histogram"'):
        opened("histogramm")
    with pytest.raises(Unserved, match="fraction of previous gives a number"):
        Recipe("fraction_of_previous", "abc", 4).network()
