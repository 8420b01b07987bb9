"""A specimen is a transformer like any other: its parts optional, everything served, its arithmetic that of models we did not write."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

import patchclamp as pc
from patchclamp.core.errors import NotAModel, Unserved
from patchclamp.model.specimen import Specimen, SpecimenConfig, solu

ATTENTION = ["attn.in", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.z", "attn.out"]
FEED_FORWARD = ["mlp.in", "mlp.pre", "mlp.act", "mlp.out"]
SMALL = {"vocab": 20, "layers": 2, "heads": 2, "d_model": 16, "d_head": 6, "d_mlp": 24, "length": 12}
KINDS = [
    {},
    {"norm": "none"},
    {"norm": "rms", "positional": "rotary", "bias": False, "activation": "silu"},
    {"norm": "none", "positional": "none", "causal": False, "activation": "relu"},
    {"norm": "layer", "positional": "rotary", "causal": False, "tied": True},
    {"norm": "rms", "positional": "none", "scale": 3.0, "classes": 5},
    {"activation": "solu", "bias": False},
    {"d_mlp": 0, "norm": "none", "positional": "none"},
    {"heads": 0},
    {"layers": 3, "heads": [3, 0, 1], "d_mlp": [0, 9, 5], "norm": "none"},
    {"heads": [0, 2], "positional": "rotary", "d_head": 10},
    {"layers": 1, "heads": 1, "d_head": 1, "d_mlp": 1, "d_model": 3},
]


def specimen(**options) -> Specimen:
    """A specimen whose every part is random enough to matter."""
    hf = Specimen(SpecimenConfig(**{**SMALL, **options})).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return hf


@pytest.fixture(scope="module", params=KINDS, ids=str)
def model(request):
    return pc.load(specimen(**request.param))


@pytest.fixture
def ids():
    return (torch.arange(14) * 3 % 20).view(2, 7)


def test_every_place_is_served(model):
    config, places = model.hf.config, ["embed.out", "logits"]
    for i in range(config.layers):
        heads, neurons = config.heads_at(i), config.neurons_at(i)
        names = [
            "in",
            *(ATTENTION if heads else []),
            *(["mid"] if heads and neurons else []),
            *(FEED_FORWARD if neurons else []),
        ]
        places += [f"blocks.{i}.{name}" for name in [*names, "out"]]
    assert set(model.sites) == {*places, *([] if config.norm == "none" else ["norm.out"])}
    assert (model.width, model.layers) == (config.d_model, config.layers)


def test_looking_changes_nothing_and_weights_make_what_the_places_hold(model, ids):
    run, weights = model.run(ids, keep=[*model.sites]), model.weights
    assert torch.allclose(run.logits, model.hf(ids).logits, atol=1e-5)
    assert torch.equal(model.run(ids, keep="embed.out").logits, model.hf(ids).logits)
    for path in model.sites:
        block, _, name = path.rpartition(".")
        if name in ("q", "k", "v") and not (name != "v" and model.hf.config.positional == "rotary"):
            made = torch.einsum("bpd,hde->bphe", run[f"{block}.in"], weights[f"{block}.W_{name.upper()}"])
            assert torch.allclose(made + weights[f"{block}.b_{name.upper()}"], run[path], atol=1e-4)
        elif name == "z":
            made = torch.einsum("bphe,hed->bpd", run[path], weights[f"{block}.W_O"]) + weights[f"{block}.b_O"]
            assert torch.allclose(made, run[f"{block}.out"], atol=1e-4)
        elif name == "act":
            made = run[path] @ weights[f"{block}.W_out"] + weights[f"{block}.b_out"]
            assert torch.allclose(made, run[f"{block}.out"], atol=1e-4)


def test_contributions_add_up(model, ids):
    parts = pc.decompose(model, ids, pc.logit_diff(3, 1))
    assert float(parts.values.sum()) == pytest.approx(parts.baseline["metric"], abs=1e-3)


def test_effects_are_those_of_patching_by_hand(model, ids):
    other = ids.clone()
    other[:, 2] = 15
    source, base = model.run(ids, keep=[*model.sites]), model.run(other).logits[:, -1, 3]
    for site, index in (
        ("blocks.*.out", "pos"),
        (model.places("blocks.*.attn.z" if model.heads else "blocks.*.mlp.act")[-1], ""),
    ):
        star = index or ("head" if model.heads else "neuron")
        grid = pc.effects(model, ids, other, f"{site}[{star}=*]", pc.logit(3))
        patched = model.edit(pc.patch(f"{model.places(site)[-1]}[{star}=0]", source)).run(other)
        change = float((patched.logits[:, -1, 3] - base).mean())
        assert float(grid.values.reshape(-1, grid.values.shape[-1])[-1, 0]) == pytest.approx(change, abs=1e-4)


def test_tokens_see_earlier_ones_only_unless_told(model, ids):
    other = ids.clone()
    other[:, -1] = 15
    moved = (model.hf(ids).logits - model.hf(other).logits)[:, :-1].abs().max()
    sees = not model.hf.config.causal and model.heads > 0
    assert (moved > 1e-4) == sees and model.anatomy.main.causal == (not sees)


def test_padding_does_not_matter(model, ids):
    alone, beside = model.run(ids[:1, :3]), model.run([ids[0, :3].tolist(), ids[1].tolist()])
    assert torch.allclose(beside.logits[0, -3:], alone.logits[0], atol=1e-4)


def test_it_saves_and_opens_again(model, ids, tmp_path):
    model.hf.save_pretrained(tmp_path)
    again = pc.load(tmp_path)
    assert type(again.hf) is Specimen
    assert all(
        getattr(again.hf.config, name) == getattr(model.hf.config, name) for name in SpecimenConfig().to_dict() if name in SMALL
    )
    assert torch.equal(again.hf(ids).logits, model.hf(ids).logits)
    assert (again.hf.unembed.weight is again.hf.embed.weight) == model.hf.config.tied


def test_a_cache_changes_nothing(model, ids):
    if not model.hf.config.causal or model.hf.config.classes:
        with pytest.raises(Unserved, match="does not generate: its (logits are 5 classes|tokens see later ones)"):
            model.generate(ids[:1], max_new_tokens=2)
        return
    kept = model.hf.generate(ids, max_new_tokens=4, do_sample=False)
    plain = model.hf.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False)
    assert torch.equal(kept, plain) and kept.shape == (2, 11)
    whole, first = model.hf(ids).logits, model.hf(ids[:, :4], use_cache=True)
    later = model.hf(ids[:, 4:], past_key_values=first.past_key_values)
    assert torch.allclose(later.logits, whole[:, 4:], atol=1e-5)
    assert torch.allclose(model.hf(ids, logits_to_keep=2).logits, whole[:, -2:], atol=1e-6)


def test_generation_goes_through_the_edits(ids):
    model = pc.load(specimen())
    assert model.generate(ids[:1], max_new_tokens=3).tokens.shape == (1, 10)
    steered = model.edit(pc.steer("blocks.1.out", 50 * model.hf.unembed.weight[7])).run(ids)
    assert not torch.equal(steered.logits, model.run(ids).logits)


def test_with_the_weights_of_a_gpt2_it_is_that_gpt2(ids):
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=12, n_embd=16, n_layer=2, n_head=4, activation_function="gelu",
                                        bos_token_id=None, eos_token_id=None)).eval()  # fmt: skip
    ours = specimen(heads=4, d_head=4, d_mlp=64, tied=True)
    state = {"embed.weight": theirs.transformer.wte.weight, "positions.weight": theirs.transformer.wpe.weight}
    state |= {f"norm.{k}": v for k, v in theirs.transformer.ln_f.state_dict().items()} | {
        "unembed.weight": theirs.lm_head.weight
    }
    for i, block in enumerate(theirs.transformer.h):
        parts = {"norm1": block.ln_1, "norm2": block.ln_2}
        state |= {f"blocks.{i}.{n}.{k}": v for n, m in parts.items() for k, v in m.state_dict().items()}
        pairs = {"attn.o": block.attn.c_proj, "mlp.up": block.mlp.c_fc, "mlp.down": block.mlp.c_proj}
        state |= {f"blocks.{i}.{n}.weight": m.weight.T for n, m in pairs.items()}
        state |= {f"blocks.{i}.{n}.bias": m.bias for n, m in pairs.items()}
        for j, n in enumerate("qkv"):
            part = slice(16 * j, 16 * j + 16)
            state |= {f"blocks.{i}.attn.{n}.weight": block.attn.c_attn.weight[:, part].T}
            state |= {f"blocks.{i}.attn.{n}.bias": block.attn.c_attn.bias[part]}
    ours.load_state_dict(state)
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-6)


def test_with_the_weights_of_a_gpt_neox_its_rotations_are_the_same(ids):
    config = GPTNeoXConfig(vocab_size=20, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
                           rotary_pct=1.0, use_parallel_residual=False, hidden_act="relu", bos_token_id=None, eos_token_id=None)  # fmt: skip
    theirs, ours = (
        GPTNeoXForCausalLM(config).eval(),
        specimen(layers=1, d_model=24, heads=4, d_head=6, d_mlp=32, positional="rotary", activation="relu"),
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    block = theirs.gpt_neox.layers[0]
    modules = {"embed": theirs.gpt_neox.embed_in, "norm": theirs.gpt_neox.final_layer_norm, "unembed": theirs.get_output_embeddings(),
               "blocks.0.norm1": block.input_layernorm, "blocks.0.norm2": block.post_attention_layernorm,
               "blocks.0.attn.o": block.attention.dense, "blocks.0.mlp.up": block.mlp.dense_h_to_4h,
               "blocks.0.mlp.down": block.mlp.dense_4h_to_h}  # fmt: skip
    state = {f"{n}.{k}": v for n, m in modules.items() for k, v in m.state_dict().items()}
    fused = block.attention.query_key_value
    for j, n in enumerate("qkv"):  # head by head, each with its query, key and value
        state[f"blocks.0.attn.{n}.weight"] = fused.weight.view(4, 3, 6, 24)[:, j].flatten(0, 1)
        state[f"blocks.0.attn.{n}.bias"] = fused.bias.view(4, 3, 6)[:, j].flatten()
    ours.load_state_dict(state)
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-4)


def test_the_pattern_is_what_eager_attention_returns(ids):
    hf = specimen(causal=False)
    hf.set_attn_implementation("eager")
    given = hf(ids, output_attentions=True, output_hidden_states=True)
    run = pc.load(hf).run(ids, keep=["blocks.*.attn.pattern", "blocks.1.in"])
    assert torch.equal(torch.stack(given.attentions), run["blocks.*.attn.pattern"])
    assert torch.equal(given.hidden_states[1], run["blocks.1.in"])


def test_it_begins_as_gpt2_does():
    hf = Specimen(SpecimenConfig(vocab=500, layers=8, d_model=128, d_mlp=512))
    assert float(hf.embed.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(hf.blocks[3].attn.q.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(hf.blocks[3].attn.o.weight.detach().std()) == pytest.approx(0.005, rel=0.05)
    assert float(hf.blocks[3].mlp.down.weight.detach().std()) == pytest.approx(0.005, rel=0.05)
    assert not hf.blocks[3].mlp.up.bias.any() and (hf.norm.weight == 1).all()


def test_training_reaches_every_parameter(model, ids):
    model.hf(ids).logits.square().mean().backward()
    still = [n for n, p in model.hf.named_parameters() if p.grad is None or not p.grad.any()]
    model.hf.zero_grad()
    assert [n for n in still if not n.endswith("k.bias")] == []  # a bias of all keys moves no softmax; it does under rotation


def test_solu_favours_the_largest():
    assert solu(torch.tensor([4.0, 1.0, 0.0])).argmax() == 0 and float(solu(torch.tensor([9.0, 0.0]))[0]) == pytest.approx(
        9, abs=0.01
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"positional": "rotory"}, 'none, learned, rotary, not "rotory". Did you mean "rotary"?'),
        ({"norm": "batch"}, "none, layer, rms"),
        ({"activation": "tanh"}, "relu, gelu, silu, solu"),
        ({"heads": [1, 2, 3]}, "heads lists 3 blocks for layers=2"),
        ({"d_mlp": [4]}, "d_mlp lists 1 blocks for layers=2"),
        ({"positional": "rotary", "d_head": 5}, "d_head=5 is odd"),
        ({"length": 0}, "learned positions need length="),
        ({"tied": True, "classes": 3}, "classes are not the vocabulary"),
    ],
)
def test_what_cannot_be_built_says_why(options, said):
    with pytest.raises(NotAModel) as caught:
        SpecimenConfig(**{**SMALL, **options})
    assert said in str(caught.value)
