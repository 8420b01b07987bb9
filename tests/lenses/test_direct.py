"""Direct contributions add up: all of them to the logit, heads and neurons to their layer, sources to their head."""

import pytest
import torch

import induction
import patchclamp as pc
import zoo
from patchclamp.core.errors import UnknownSite, Unserved, WrongAxis
from patchclamp.lenses.direct import Reading

IDS = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [40, 51, 42, 53, 44, 55, 46]])
LOGIT, DIFFERENCE = pc.logit(7), pc.logit_diff(7, 8)
KINDS = {
    "gpt2": "causal",  # biases everywhere, matrices transposed
    "llama": "causal",  # grouped queries, a gate, no bias
    "gemma2": "causal",  # norms behind every layer, 1 + w, a soft-cap on the logits
    "gpt_neox": "causal",  # parallel blocks, interleaved matrices
    "bloom": "causal",  # a norm on the embedding, the residual added inside
    "granite": "causal",  # factors on the embedding, on every write and on the logits
    "olmo2": "causal",  # norms behind, none before
    "cohere": "causal",  # parallel, logits scaled
    "opt": "causal",
    "openai-gpt": "causal",  # norms that stand in the stream
    "t5": "seq2seq",  # cross-attention
    "mamba": "causal",  # mixers instead of attention
}


def opened(kind, task=None):
    with zoo.quiet():
        model = pc.load(zoo.build(kind, task or KINDS[kind]))
    if (task or KINDS[kind]) == "seq2seq":
        model.hf.generation_config.decoder_start_token_id = 0
    return model


def tolerance(metric):
    return 1e-4 * max(1.0, float(metric.abs().max()))


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return opened(request.param)


@pytest.mark.parametrize("metric", [LOGIT, DIFFERENCE], ids=["logit", "difference"])
def test_everything_that_writes_adds_up_to_the_metric(model, metric):
    with zoo.quiet():
        grid = pc.decompose(model, IDS, metric)
        truth = metric(model.run(IDS).logits)
    assert grid.axes == ("component",) and grid.unit == "logits" and grid.each.shape == (2, *grid.values.shape)
    assert torch.allclose(grid.each.sum(1), truth, atol=tolerance(truth))
    assert grid.baseline["metric"] == pytest.approx(float(truth.mean()), abs=1e-5)
    assert len(set(grid.words("component"))) == grid.shape["component"]


def test_heads_add_up_to_their_attention_layer_but_for_its_bias(model):
    if not [p for p in model.sites if p.endswith("attn.z")]:
        pytest.skip("this model has no attention")
    heads = pc.direct(model, IDS, "blocks.*.attn.z[head=*]", DIFFERENCE)
    layers = pc.direct(model, IDS, "blocks.*.attn.out", DIFFERENCE)
    assert heads.axes == ("layer", "head") and heads.shape == {"layer": 2, "head": 4} and layers.axes == ("layer",)
    assert torch.allclose(heads.each.sum(-1) + biases(model, "attn"), layers.each, atol=1e-4)
    assert torch.allclose(pc.direct(model, IDS, "blocks.*.attn.z", DIFFERENCE).values, heads.values.sum(-1), atol=1e-5)


def test_neurons_add_up_to_their_feed_forward_layer_but_for_its_bias(model):
    if not [p for p in model.sites if p.endswith("mlp.act")]:
        pytest.skip("this model has no feed-forward layers")
    neurons = pc.direct(model, IDS, "blocks.*.mlp.act[neuron=*]", DIFFERENCE)
    layers = pc.direct(model, IDS, "blocks.*.mlp.out", DIFFERENCE)
    assert neurons.axes == ("layer", "neuron")
    assert torch.allclose(neurons.each.sum(-1) + biases(model, "mlp"), layers.each, atol=1e-4)


def test_sources_add_up_to_their_head(model):
    if not [p for p in model.sites if p.endswith("attn.pattern")]:
        pytest.skip("this model has no attention")
    sources = pc.direct(model, IDS, "blocks.*.attn.pattern[head=*, key=*]", DIFFERENCE)
    heads = pc.direct(model, IDS, "blocks.*.attn.z[head=*]", DIFFERENCE)
    assert sources.axes == ("layer", "head", "key")
    assert torch.allclose(sources.each.sum(-1), heads.each, atol=1e-4)
    turned = pc.direct(model, IDS, "blocks.*.attn.pattern[key=*, head=*]", DIFFERENCE)
    assert turned.axes == ("layer", "key", "head") and torch.equal(turned.values, sources.values.transpose(1, 2))
    keys = pc.direct(model, IDS, "blocks.*.attn.pattern[key=*]", DIFFERENCE)
    assert torch.allclose(keys.values, sources.values.sum(1), atol=1e-5)


def test_layers_are_the_components_of_the_decomposition(model):
    with zoo.quiet():
        whole = pc.decompose(model, IDS, LOGIT)
        for part in ("attn", "mlp", "mixer"):
            if not any(p.endswith(f".{part}.out") for p in model.sites):
                continue
            layers = pc.direct(model, IDS, f"blocks.*.{part}.out", LOGIT)
            for layer in layers.words("layer"):
                assert torch.allclose(layers.at(layer=layer).values, whole.at(component=f"{layer} {part}").values, atol=1e-5)


def biases(model, part):
    """What the output biases of a kind of layer contribute (batch, layer), read where the layer's heads or neurons are."""
    reading = Reading.of(model, model.inputs(IDS), model.metric(DIFFERENCE), model.places(f"blocks.*.{part}.out"))
    found = []
    for block in model.anatomy.main.blocks:
        path = f"{block.path}.{part}"
        bias = model.weights[f"{path}.{'b_O' if part == 'attn' else 'b_out'}"]
        norms = block.write(part).norms
        assert not norms or not bias.any(), "a bias behind which a norm stands is not what this test is about"
        scale = 1.0
        for factor in block.write(part).factors:
            scale = scale * factor
        found.append((reading.along[path] * scale) @ bias)
        for norm in norms:
            found[-1] = found[-1] + reading.along[path] @ model.weights.norm(norm).bias
    return torch.stack(found, 1)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_by_hand_on_a_story(stories):
    """A Llama ends with an RMSNorm: a write's contribution is write * weight / length, along the token's column."""
    prompt = "Once upon a time, there was a little girl named"
    lily, tim = stories.token(" Lily"), stories.token(" Tim")
    run = stories.run(prompt, keep=["blocks.*.attn.out", "blocks.*.mlp.out", "blocks.4.out", "blocks.0.in"])
    norm, head = stories.hf.model.norm, stories.hf.lm_head.weight
    length = (run["blocks.4.out"][0, -1].square().mean() + norm.variance_epsilon).sqrt()
    with torch.no_grad():
        column = (head[lily] - head[tim]) * norm.weight / length
    whole = pc.decompose(stories, prompt, pc.logit_diff(" Lily", " Tim"))
    for layer in range(5):
        for part in ("attn", "mlp"):
            by_hand = float(run[f"blocks.{layer}.{part}.out"][0, -1] @ column)
            assert float(whole.at(component=f"{layer} {part}").values) == pytest.approx(by_hand, abs=1e-4)
    assert float(whole.at(component="embedding").values) == pytest.approx(float(run["blocks.0.in"][0, -1] @ column), abs=1e-4)
    logits = run.logits[0, -1]
    assert float(whole.values.sum()) == pytest.approx(float(logits[lily] - logits[tim]), abs=1e-4)


def test_a_storys_contributions_add_up(stories):
    prompt = "Once upon a time, there was a little girl named"
    for metric in (pc.logit(" Lily"), pc.logit_diff(" Lily", " Tim")):
        whole = pc.decompose(stories, prompt, metric)
        assert abs(float(whole.values.sum()) - whole.baseline["metric"]) < 1e-4
    sources = pc.direct(stories, prompt, "blocks.*.attn.pattern[key=*]", pc.logit(" Lily"))
    assert list(sources.words("key"))[:2] == ["0 <s>", "1 Once"] and list(sources.words("layer")) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("metric", [pc.logit(" Mary"), pc.logit_diff(" Mary", " John")])
def test_the_towns_contributions_add_up(town, metric):
    prompts = ["When Mary and John went to the store, John gave a drink to", "Mary and John went home. John saw"]
    whole = pc.decompose(town, prompts, metric)
    truth = town.metric(metric)(town.run(prompts).logits)
    assert torch.allclose(whole.each.sum(1), truth, atol=1e-4)


def test_a_berts_contributions_add_up():
    """Norms stand in its stream; its head for classes of tokens is one matrix (that for masked tokens is not, and is refused)."""
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_labels=9
    )
    model = pc.load(BertForTokenClassification(config).eval())
    for metric in (LOGIT, DIFFERENCE):
        whole = pc.decompose(model, IDS, metric)
        truth = metric(model.run(IDS).logits)
        assert torch.allclose(whole.each.sum(1), truth, atol=1e-4) and float(truth.abs().min()) > 1e-3
        heads = pc.direct(model, IDS, "blocks.*.attn.z[head=*]", metric)
        attention = pc.direct(model, IDS, "blocks.*.attn.out", metric)
        assert torch.allclose(heads.values.sum(1), attention.values, atol=1e-4)  # its output biases are zero


def test_the_embedding_is_read_through_the_factor_before_the_first_block():
    for kind, factor in (("llama", 1.0), ("granite", 2.0)):
        model = opened(kind)
        embedded, whole = pc.direct(model, IDS, "embed.out", LOGIT), pc.decompose(model, IDS, LOGIT)
        assert torch.allclose(embedded.each, whole.at(component="embedding").each, atol=1e-4), (kind, factor)
    with pytest.raises(Unserved, match=r"through more than a factor; take blocks\.0\.in instead"):  # bloom has a norm there
        pc.direct(opened("bloom"), IDS, "embed.out", LOGIT)


# ---- real checkpoints ------------------------------------------------------------------------------------------------


def test_a_sorting_gpt(shared):
    model = pc.load(shared / "models" / "gpt-nano-sort")
    prompt = torch.tensor([[0, 2, 1, 0, 1, 2], [2, 2, 1, 1, 0, 0]])
    for metric in (pc.logit(0), pc.logit_diff(0, 2)):
        grid = pc.decompose(model, prompt, metric)
        assert torch.allclose(grid.each.sum(1), metric(model.run(prompt).logits), atol=1e-4)


def test_an_albert_at_its_masked_token(shared):
    model = pc.load(shared / "models" / "rxnmapper-albert")
    ids = model.tokenizer("CC(=O)O.OCC>>CC(=O)OCC")["input_ids"]
    masked = [*ids[:5], model.tokenizer.mask_token_id, *ids[6:]]
    with pytest.raises(Unserved, match="through 2 matrices with a nonlinearity between"):
        pc.decompose(model, masked, pc.logit(ids[5]))


@pytest.fixture(scope="module")
def attention_only(shared):
    return pc.load(induction.module(shared))


def test_an_induction_heads_work_is_seen(attention_only):
    """On a repeated sequence the second layer's heads write the token that comes next, taken from where it stood."""
    prompt, following = induction.repeated()
    assert int(attention_only.run(prompt).logits[0, -1].argmax()) == following
    whole = pc.decompose(attention_only, prompt, pc.logit(following))
    assert abs(float(whole.values.sum()) - whole.baseline["metric"]) < 1e-4
    assert list(whole.words("component")) == ["embedding", "0 attn", "1 attn"]
    assert whole.top(1)[0][0]["component"] == "1 attn"
    heads = pc.direct(attention_only, prompt, "blocks.*.attn.z[head=*]", pc.logit(following))
    assert torch.allclose(heads.values.sum(1), whole.values[1:], atol=1e-4)
    sources = pc.direct(attention_only, prompt, "blocks.1.attn.pattern[key=*]", pc.logit(following))
    assert sources.axes == ("key",) and sources.top(1)[0][0]["key"].split()[0] == "10"


# ---- what a grid looks like, and what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "axes", "shape"),
    [
        ("blocks.*.attn.out", ("layer",), (2,)),
        ("blocks.1.attn.out", (), ()),
        ("blocks.0:1.attn.z[head=*]", ("layer", "head"), (1, 4)),
        ("blocks.1.attn.z[head=1:3]", ("head",), (2,)),
        ("blocks.*.mlp.act[neuron=5:]", ("layer", "neuron"), (2, 91)),
        ("blocks.*.*.out", ("layer", "component"), (2, 2)),
        ("blocks.*.attn.pattern[head=2:3, key=*]", ("layer", "head", "key"), (2, 1, 7)),
    ],
)
def test_every_star_is_an_axis(llama, pattern, axes, shape):
    grid = pc.direct(llama, IDS, pattern, LOGIT)
    assert grid.axes == axes and tuple(grid.values.shape) == shape


def test_a_range_is_a_part_of_the_whole(llama):
    part, whole = (pc.direct(llama, IDS, f"blocks.*.attn.z[head={h}]", LOGIT) for h in ("1:3", "*"))
    assert torch.equal(part.values, whole.values[:, 1:3]) and list(part.words("head")) == ["1", "2"]


def test_prompts_of_unequal_length_are_read_at_their_own_ends(gpt2):
    prompts = [[30, 31, 32, 33, 34], [40, 41]]
    both = pc.decompose(gpt2, prompts, pc.logit([7, 9]))
    for r, token in enumerate((7, 9)):
        alone = pc.decompose(gpt2, prompts[r], pc.logit(token))
        assert torch.allclose(both.each[r], alone.values, atol=1e-4)
    heads = pc.direct(gpt2, prompts, "blocks.*.attn.z[head=*]", pc.logit([7, 9]))
    assert torch.allclose(heads.each[1], pc.direct(gpt2, prompts[1], "blocks.*.attn.z[head=*]", pc.logit(9)).values, atol=1e-4)


def test_an_edited_model_is_taken_apart_as_edited(llama):
    edited = llama.edit(pc.zero("blocks.0.attn.z[head=1]"), pc.zero("blocks.1.mlp.out"))
    grid = pc.decompose(edited, IDS, LOGIT)
    assert torch.allclose(grid.each.sum(1), LOGIT(edited.run(IDS).logits), atol=1e-4)
    assert float(grid.at(component="1 mlp").values) == 0
    assert float(pc.direct(edited, IDS, "blocks.*.attn.z[head=*]", LOGIT).values[0, 1]) == 0


def test_cross_attention_is_named_by_what_the_encoder_read():
    model = opened("t5")
    with zoo.quiet():
        sources = pc.direct(model, IDS[:1], "blocks.*.cross.pattern[key=*]", LOGIT)
    assert list(sources.words("key")) == [f"{i} {t}" for i, t in enumerate(IDS[0].tolist())]


@pytest.mark.parametrize("metric", [pc.prob(7), pc.nll(7), pc.rank(7)])
def test_only_logits_are_sums(llama, metric):
    for ask in (lambda: pc.decompose(llama, IDS, metric), lambda: pc.direct(llama, IDS, "blocks.*.mlp.out", metric)):
        with pytest.raises(Unserved, match=f"not to a {metric.name}; use pc.logit or pc.logit_diff"):
            ask()


@pytest.mark.parametrize(
    ("site", "error", "says"),
    [
        ("blocks.0.mid", Unserved, r"blocks.0.mid does not write into the stream by itself; heads \(attn.z\)"),
        ("blocks.*.attn.q", Unserved, "does not write into the stream by itself"),
        ("norm.out", Unserved, "norm.out does not write into the stream by itself"),
        ("logits", Unserved, "logits does not write into the stream by itself"),
        ("blocks.*.attn.z[head=0]", WrongAxis, r'fixes "head"; .* take stars and then grid.at\(...\)'),
        ("blocks.*.attn.z[neuron=*]", WrongAxis, 'has no axis "neuron"; the parts of blocks.0.attn.z are along head'),
        ("blocks.*.mlp.out[pos=*]", WrongAxis, 'has no axis "pos"; blocks.0.mlp.out contributes as a whole'),
        ("blocks.*.attn.zz", UnknownSite, "Did you mean"),
    ],
)
def test_places_that_write_nothing_are_named(llama, site, error, says):
    with pytest.raises(error, match=says):
        pc.direct(llama, IDS, site, LOGIT)


def test_what_stands_between_is_named():
    with zoo.quiet():
        gated = opened("qwen3_next", "causal")
        path = next(p for p in gated.sites if p.endswith("attn.pattern"))
        with pytest.raises(Unserved, match=f"{path}: a gate stands between the pattern and the output matrix; take .*attn.z"):
            pc.direct(gated, IDS, f"{path}[key=*]", LOGIT)
        experts = opened("mixtral", "causal")
        with pytest.raises(pc.PatchclampError, match="mlp"):
            pc.direct(experts, IDS, "blocks.*.mlp.act[neuron=*]", LOGIT)
        with pytest.raises(Unserved, match="through 2 matrices with a nonlinearity between; contributions would not add up"):
            pc.decompose(opened("bert", "masked"), IDS, LOGIT)


def test_a_model_without_logits_has_nothing_to_take_apart():
    with pytest.raises(Unserved, match="logits"):
        pc.decompose(pc.load(zoo.build("gpt2", "base")), IDS, LOGIT)
