"""What is saved comes back, and what cannot be written down says so."""

import json

import pytest
import torch

from patchclamp.core import store
from patchclamp.core.edit import Edit, clamp, mean, patch, project, steer, zero
from patchclamp.core.errors import NotSaved
from patchclamp.core.graph import Edge, Graph, Node
from patchclamp.core.grid import Grid
from patchclamp.core.run import Run


def test_a_grid_comes_back(tmp_path):
    grid = Grid(torch.randn(2, 3), ("layer", "pos"), {"pos": ["a", " b", "␣"]}, "logits", "T", "n", text=[list("abc"), list("def")],
                details={"KL": torch.randn(2, 3)}, baseline={"clean": 1.5}, each=torch.randn(4, 2, 3))  # fmt: skip
    back = Grid.load(grid.save(tmp_path / "g"))
    assert torch.equal(back.values, grid.values) and torch.equal(back.each, grid.each)
    assert torch.equal(back.details["KL"], grid.details["KL"])
    for name in ("axes", "labels", "unit", "title", "note", "text", "baseline", "scale"):
        assert getattr(back, name) == getattr(grid, name), name


def test_a_run_comes_back(gpt2, ids, tmp_path):
    run = gpt2.run(ids, keep=["blocks.*.out", "blocks.1.attn.pattern[head=2]"])
    back = Run.load(run.save(tmp_path / "r"))
    assert torch.equal(back.logits, run.logits) and torch.equal(back.tokens, run.tokens)
    assert back.words == run.words and back.last == run.last
    assert torch.equal(back["blocks.*.out"], run["blocks.*.out"])
    assert torch.equal(back["blocks.1.attn.pattern[head=2]"], run["blocks.1.attn.pattern[head=2]"])
    assert back.next().words("vocab")[int(ids[0, 0])] == str(int(ids[0, 0]))


def test_a_run_from_disk_can_be_patched_in(gpt2, ids, tmp_path):
    run = gpt2.run(ids, keep="blocks.0.out")
    back = Run.load(run.save(tmp_path / "r"))
    assert torch.equal(gpt2.edit(patch("blocks.0.out", back)).run(ids).logits, run.logits)


def test_a_graph_comes_back(tmp_path):
    graph = Graph(
        (Node("a.out", 1.0, "A"), Node("logits")), (Edge("a.out", "logits", 0.5, "q"),), "logits", "T", {"model": "m"}
    )
    assert Graph.load(graph.save(tmp_path / "g")) == graph


def test_edits_of_a_named_kind_come_back(gpt2, ids, tmp_path):
    other = gpt2.run(ids.flip(1), keep="blocks.0.out")
    edits = [zero("blocks.1.mlp.out"), clamp("blocks.0.out[pos=1]", 2.0), steer("blocks.0.out", torch.randn(64)),
             project("blocks.1.out", torch.randn(2, 64)), patch("blocks.0.out", other), mean("blocks.0.out", other)]  # fmt: skip
    for n, edit in enumerate(edits):
        back = Edit.load(edit.save(tmp_path / str(n)))
        assert str(back.site) == str(edit.site) and back.kind == edit.kind
        assert torch.equal(gpt2.edit(back).run(ids).logits, gpt2.edit(edit).run(ids).logits), edit


def test_a_function_cannot_be_written_down(tmp_path):
    with pytest.raises(NotSaved, match="holds Python objects"):
        Edit("blocks.0.out", lambda v: v).save(tmp_path / "e")
    assert not (tmp_path / "e" / store.CARD).exists()


def test_the_card_is_readable_and_nothing_is_pickled(tmp_path):
    folder = Grid(torch.zeros(2), ("layer",), title="Ünïcode").save(tmp_path / "g")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["noun"] == "Grid" and card["title"] == "Ünïcode"
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "tensors.safetensors"]


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "holds no card.json"), ("{", "not readable JSON"), ('{"noun": "Run", "version": 1}', "holds a Run, not a Grid"),
     ('{"noun": "Grid", "version": 99}', "newer Patchclamp")],
)  # fmt: skip
def test_a_folder_that_is_no_grid(tmp_path, text, says):
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(NotSaved, match=says):
        Grid.load(tmp_path)


def test_only_nouns_are_saved(tmp_path):
    with pytest.raises(NotSaved, match="is not a noun"):
        store.save(3, tmp_path)
