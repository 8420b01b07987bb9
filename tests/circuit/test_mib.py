"""The benchmark's JSON: written, read, and read again the same."""

import json

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.eap import eap
from patchclamp.circuit.edges import edges
from patchclamp.circuit.mib import read_mib, write_mib
from patchclamp.core.errors import NotSaved, UnknownSite

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36]])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_graph_survives_the_journey(family, request, tmp_path):
    model = request.getfixturevalue(family)
    ranking = edges(model, CLEAN, CORRUPT, pc.logit_diff(7, 8), estimate=eap)
    circuit = ranking.prune(0.5)
    path = write_mib(circuit, tmp_path / "circuit.json", model, ranking)
    again = {(e.sender, e.receiver, e.into): e.weight for e in read_mib(path, model).edges}
    assert again == pytest.approx({(e.sender, e.receiver, e.into): e.weight for e in circuit.edges})
    assert len(read_mib(path, model, only=False).edges) == len(ranking.edges)


def test_names_are_the_benchmarks(gpt2, tmp_path):
    graph = edges(gpt2, CLEAN, CORRUPT, pc.logit_diff(7, 8), estimate=eap)
    said = json.loads(write_mib(graph, tmp_path / "g.json", gpt2).read_text())
    assert {"input->a0.h0<q>", "a0.h1->m0", "m0->a1.h2<v>", "a1.h0->logits"} <= set(said["edges"])
    assert set(said["nodes"]["a0.h0"]) == {"in_graph"}
    assert said["cfg"]["n_layers"] == gpt2.layers


def test_files_of_another_form_or_model_are_refused(gpt2, llama, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(NotSaved, match="benchmark's form"):
        read_mib(tmp_path / "bad.json", gpt2)
    (tmp_path / "other.json").write_text(json.dumps({"cfg": {"n_layers": 48, "n_heads": 1}, "edges": {}}))
    with pytest.raises(UnknownSite, match="48 layers"):
        read_mib(tmp_path / "other.json", gpt2)
    cfg = {"n_layers": gpt2.layers, "n_heads": gpt2.heads}
    (tmp_path / "odd.json").write_text(json.dumps({"cfg": cfg, "edges": {"a0->m1": {"score": 1, "in_graph": True}}}))
    with pytest.raises(NotSaved, match="edges are named"):
        read_mib(tmp_path / "odd.json", gpt2)


def test_edges_of_single_tokens_have_no_place_in_it(gpt2, tmp_path):
    graph = edges(gpt2, CLEAN, CORRUPT, pc.logit_diff(7, 8), estimate=eap, positions=True)
    with pytest.raises(NotSaved, match="no tokens"):
        write_mib(graph, tmp_path / "g.json", gpt2)
