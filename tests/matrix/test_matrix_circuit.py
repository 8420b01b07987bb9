"""QK and OV circuits say what the model does: scores exactly, and logits where no norm stands in between."""

import pytest
import torch

import attention_only
import patchclamp as pc
import zoo
from patchclamp.core.errors import UnknownSite, Unserved, WrongAxis
from patchclamp.matrix.circuit import direct, ov, qk, reading
from patchclamp.matrix.sources import neurons, positions, stream, tokens

IDS = torch.tensor([[31, 7, 9, 15, 22, 40]])
FAMILIES = [
    "gpt2",
    "llama",
    "gpt_neox",
    "gemma2",
    "qwen3",
    "gemma3_text",
    "bert",
    "opt",
    "phi3",
    "cohere",
    "granite",
    "bloom",
    "mpt",
    "gptj",
    "stablelm",
    "persimmon",
    "gpt_oss",
]


@pytest.mark.parametrize("kind", FAMILIES)
def test_scores_are_the_models_own_at_every_distance(kind):
    layer, head = 1, 1
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        run = model.run(IDS, keep=["blocks.1.in", "blocks.1.attn.scores"])
        rows = stream(model, run["blocks.1.in"][0], layer)
        made = [qk(model, f"blocks.{layer}.attn.z[head={head}]", rows, rows, distance=d).factored.full() for d in (0, 2)]
    seen = run["blocks.1.attn.scores"][0, head]
    for d, table in zip((0, 2), made):
        for i in range(d, 6):  # against the score of the query's own token, since some families add a slope over places
            assert float(table[i, i - d] - made[0][i, i]) == pytest.approx(float(seen[i, i - d] - seen[i, i]), abs=1e-4)


def test_token_circuits_of_a_first_layer_are_scores_of_tokens(llama):
    run = llama.run(IDS, keep="blocks.0.attn.scores")
    found = qk(llama, "blocks.0.attn.z[head=2]", distance=2)
    assert found.axes == ("query", "key") and found.factored.shape == (99, 99) and found.factored.rank == 16
    ids = IDS[0].tolist()
    for i in range(2, 6):
        assert float(found.grid([ids[i]], [ids[i - 2]]).values) == pytest.approx(
            float(run["blocks.0.attn.scores"][0, 2, i, i - 2]), abs=1e-4
        )
    assert found.note == ""


def test_tokens_and_positions_add_up_to_the_score():
    model = attention_only.drawn()
    head, pos = "blocks.0.attn.z[head=1]", positions(model, 6)
    seen = model.run(IDS % 40, keep="blocks.0.attn.scores")["blocks.0.attn.scores"][0, 1]
    ids = (IDS % 40)[0]
    parts = [qk(model, head, q, k) for q in (tokens(model), pos) for k in (tokens(model), pos)]
    assert [p.axes for p in parts] == [("query", "key"), ("query", "key pos"), ("query pos", "key"), ("query pos", "key pos")]
    chosen = {"query": ids, "query pos": torch.arange(6), "key": ids, "key pos": torch.arange(6)}
    total = sum(p.factored[chosen[p.axes[0]], chosen[p.axes[1]]].full() for p in parts)
    assert torch.allclose(total.tril(), seen.tril(), atol=1e-4)


def test_the_ov_circuit_is_what_full_attention_adds_to_the_logits():
    model = attention_only.drawn(positional="none")
    source, head = 5, "blocks.1.attn.z[head=2]"
    alone = model.edit(pc.zero("blocks.0.attn.out"), pc.zero("blocks.1.attn.b_O"))
    others = [pc.zero(f"blocks.1.attn.z[head={h}]") for h in (0, 1)]
    with_it = alone.edit(*others).run([[source]]).logits[0, 0]  # one token looks at itself
    without = alone.edit(pc.zero("blocks.1.attn.z")).run([[source]]).logits[0, 0]
    assert torch.allclose(ov(model, head).row(source).values, with_it - without, atol=1e-4)
    assert torch.allclose(direct(model).row(source).values, without, atol=1e-4)


def test_several_heads_are_a_virtual_head():
    model = attention_only.drawn(positional="none", bias=False)
    both = ov(model, "blocks.0.attn.z[head=1]", "blocks.1.attn.z[head=2]")
    passed = tokens(model).through("blocks.0.attn.z[head=1]")
    one = ov(model, "blocks.1.attn.z[head=2]", source=passed)
    assert torch.allclose(both.factored.full(), one.factored.full(), atol=1e-3) and both.factored.rank == 8
    assert "source through 0.1" in one.title
    with pytest.raises(WrongAxis, match="does not come after"):
        ov(model, "blocks.1.attn.z[head=1]", "blocks.1.attn.z[head=2]")


def test_keys_through_the_previous_token_head_match_the_query_in_a_published_model(shared):
    """An induction head asks which token came before: under a query, the key that its own token passes on scores highest."""
    model, own = attention_only.induction(shared), torch.arange(128)
    for reader in (1, 2, 3):
        for writer in range(4):
            passed = tokens(model).through(f"blocks.0.attn.z[head={writer}]")
            found = qk(model, f"blocks.1.attn.z[head={reader}]", key=passed)
            match = float((found.factored.argmax() == own).float().mean())
            assert match > 0.5 if writer == 2 else match < 0.05, (reader, writer)
    pos = positions(model, 40)
    places = qk(model, "blocks.0.attn.z[head=2]", pos, pos).factored.full()
    places = places.masked_fill(torch.ones_like(places).triu(1).bool(), -torch.inf)[1:]
    assert (places.argmax(1) == torch.arange(39)).float().mean() > 0.6  # and that head looks one back, by places alone


def test_circuits_end_in_neurons_and_begin_in_them(llama):
    found = ov(llama, "blocks.0.attn.z[head=1]", to="blocks.1.mlp.W_in")
    assert found.axes == ("source", "neuron") and found.unit == "pre-activation"
    assert torch.allclose(reading(llama, "blocks.1.mlp.W_in", 0), llama.weights.folded()["blocks.1.mlp.W_in"])
    said = direct(llama, neurons(llama, "blocks.1.mlp.W_out"))
    assert torch.allclose(
        said.factored.full(), llama.weights["blocks.1.mlp.W_out"] @ llama.weights.folded()["logits.W_U"], atol=1e-5
    )
    with zoo.quiet():
        parallel = pc.load(zoo.build("gpt_neox"))
    assert ov(parallel, "blocks.0.attn.z[head=1]", to="blocks.1.mlp.W_in").factored.shape == (99, 96)
    with pytest.raises(Unserved, match="a parallel block"):
        ov(parallel, "blocks.0.attn.z[head=1]", to="blocks.0.mlp.W_in")
    assert ov(llama, "blocks.0.attn.z[head=1]", to="blocks.0.mlp.W_in").factored.shape == (99, 96)
    with pytest.raises(UnknownSite, match="Did you mean"):
        ov(llama, "blocks.0.attn.z[head=1]", to="blocks.1.mlp.W_on")
    with pytest.raises(Unserved, match="does not read the stream"):
        ov(llama, "blocks.0.attn.z[head=1]", to="blocks.1.mlp.W_out")


def test_parts_rows_and_tops_are_named(town):
    found = ov(town, "blocks.3.attn.z[head=7]")
    where, value = found.top(1)[0]
    part = found.grid([where["source"]], [where["logit"], " Mary"])
    assert part.shape == {"source": 1, "logit": 2} and float(part.values[0, 0]) == pytest.approx(value, rel=1e-4)
    row = found.row(where["source"])
    assert row.axes == ("logit",) and row.top(1)[0][0] == {"logit": where["logit"]}
    assert found.column(where["logit"]).top(1)[0][0] == {"source": where["source"]}
    assert (found.grid().shape["logit"] <= 12 and "<svg" in found.html().lower()) or "<table" in found.html().lower()
    for rows, columns in (([" Mary"], None), (None, [" Mary"])):
        assert len(found.grid(rows, columns).top(1)) == 1
    with pytest.raises(WrongAxis, match="has no entry"):
        found.row("no such word")
    with pytest.raises(WrongAxis, match="has 1097 entries"):
        found.row(5000)


def test_what_has_a_norm_in_its_stream_or_two_matrices_at_its_end_is_refused():
    with zoo.quiet():
        bert = pc.load(zoo.build("bert"))
    rows = stream(bert, torch.randn(3, 64))
    with pytest.raises(Unserved, match="a norm stands in the stream|2 matrices"):
        ov(bert, "blocks.0.attn.z[head=1]", source=rows)
    with pytest.raises(WrongAxis, match="at least one"):
        ov(bert)
