"""Information flow: shares of what is read, from one pass; checked against the formula written out on plain tensors."""

import pytest
import torch

from patchclamp.circuit.flow import flows, routes
from patchclamp.model.wires import Wires

IDS = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_share_is_the_proximity_of_what_was_written_to_what_is_read(name, request):
    model = request.getfixturevalue(name)
    wires = Wires.of(model)
    run = model.run(IDS, [*wires.sites, "blocks.1.out"])
    parts, read = wires.written(run), run["blocks.1.out"]
    near = [max(float(read[b, p].abs().sum() - (read[b, p] - x[b, p]).abs().sum()), 0.0) for b in range(2) for p in range(7)
            for x in parts]  # fmt: skip
    table = torch.tensor(near).view(14, len(parts))
    expected = (table / table.sum(1, keepdim=True)).mean(0)
    found = {e.sender: e.weight for e in flows(model, IDS).incoming("logits")}
    assert [found[s] for s in wires.senders] == pytest.approx(expected.tolist(), abs=1e-5)


def test_shares_sum_to_one_and_queries_keys_and_values_read_alike(gpt2):
    graph = flows(gpt2, IDS)
    for into in "qkv":
        mine = [e for e in graph.incoming("blocks.1.attn.z[head=1]") if e.into == into]
        assert sum(e.weight for e in mine) == pytest.approx(1, abs=1e-5)
    assert graph.facts["method"] == "information flow"


def test_by_token_shares_average_to_the_pooled_ones(gpt2):
    pooled = {e.sender: e.weight for e in flows(gpt2, IDS).incoming("logits")}
    single = flows(gpt2, IDS, positions=True)
    for sender, weight in pooled.items():
        bare = sender.rstrip("]")
        at = [f"{bare}, pos={p}]" if sender.endswith("]") else f"{sender}[pos={p}]" for p in range(7)]
        found = [e.weight for e in single.edges if e.sender in at and e.receiver.startswith("logits")]
        assert sum(found) / 7 == pytest.approx(weight, abs=1e-5)


def test_a_route_is_followed_only_where_it_is_kept(gpt2):
    graph = routes(gpt2, IDS, least=0.1)
    receivers = {e.receiver for e in graph.edges}
    assert all(e.receiver == "logits" or any(o.sender == e.receiver for o in graph.edges) for e in graph.edges)
    assert "logits" in receivers and all(e.weight >= 0.1 for e in graph.edges)
