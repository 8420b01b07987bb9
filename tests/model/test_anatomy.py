"""Anatomies read from models of known make, and from modules of other people's making."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import patchclamp as pc
import zoo
from patchclamp.core.errors import NeverFired, NotAModel, UnknownSite, Unserved

SEQUENTIAL = ["in", "attn.in", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.z", "attn.out", "mid", "mlp.in",
              "mlp.pre", "mlp.act", "mlp.out", "out"]  # fmt: skip


def test_a_gpt2_has_every_place_in_order(gpt2):
    blocks = [f"blocks.{i}.{name}" for i in range(2) for name in SEQUENTIAL]
    assert list(gpt2.sites) == ["embed.out", *blocks, "norm.out", "logits"]
    assert (gpt2.width, gpt2.layers, gpt2.heads) == (64, 2, 4)


def test_a_gated_layer_has_its_gate_and_heads_are_grouped(llama):
    assert "blocks.0.mlp.gate" in llama.sites
    place = llama.anatomy.places["blocks.0.attn.k"]
    assert place.axes == ("batch", "pos", "kv_head", "d_head") and place.sizes == {"kv_head": 2, "d_head": 16}


@pytest.mark.parametrize(
    ("kind", "task", "site", "reason"),
    [
        ("gpt2", "causal", "blocks.0.mlp.gate", "it has no gate"),
        ("gpt_neox", "causal", "blocks.*.mid", "added together"),
        ("cohere", "causal", "blocks.1.mid", "a parallel block"),
        ("mamba", "causal", "blocks.0.attn.pattern", "this block has none; it has mixer"),
        ("mixtral", "causal", "blocks.0.mlp.act", "a mixture of experts"),
        ("gemma3n_text", "causal", "blocks.0.out", "4 residual streams; see blocks.0.streams"),
        ("wav2vec2-conformer", "ctc", "blocks.0.mid", "nothing is added before its feed-forward layer"),
        ("diffllama", "causal", "blocks.0.attn.pattern", "passes the interface more than once"),
        ("falcon", "causal", "blocks.0.attn.pattern", 'attn_implementation="eager"'),
        ("bert", "masked", "norm.out", "no norm reads what the last block returns"),
        ("cpmant", "causal", "blocks.0.out", "positions would not be tokens"),
        ("led", "seq2seq", "encoder.blocks.0.out", "positions would not be tokens"),
        ("xlm", "causal", "blocks.*.attn.out", "attention and feed-forward layers lie in lists of their own"),
        ("squeezebert", "masked", "blocks.0.out", "calls its blocks past PyTorch's hooks"),
        ("vitdet", "tower", "blocks.*.out", "no list of blocks that read a stream"),
        ("swin", "tower", "encoder.blocks.0.attn.pattern", "rows are windows"),
    ],
)
def test_what_cannot_be_served_says_why(kind, task, site, reason):
    with zoo.quiet():
        model = pc.load(zoo.build(kind, task))
        with pytest.raises(Unserved) as caught:
            model.places(site)
    assert reason in str(caught.value) and f'"{site}" is not served in' in str(caught.value)


def test_hybrids_serve_each_layer_what_it_has():
    with zoo.quiet():
        model = pc.load(zoo.build("bamba"))
    assert model.places("blocks.*.mixer.out") == ("blocks.0.mixer.out",)
    assert model.places("blocks.*.attn.pattern") == ("blocks.1.attn.pattern",)
    assert model.places("blocks.*.mlp.out") == ("blocks.0.mlp.out", "blocks.1.mlp.out")


def test_a_second_of_its_kind_is_numbered():
    with zoo.quiet():
        conformer, longcat = pc.load(zoo.build("wav2vec2-conformer", "ctc")), pc.load(zoo.build("longcat_flash"))
    assert [w.name for w in conformer.anatomy.main.blocks[0].writes] == ["mlp", "attn", "mixer", "mlp2"]
    assert [w.name for w in longcat.anatomy.main.blocks[0].writes] == ["attn", "mlp", "attn2", "mlp2", "mlp3"]
    assert longcat.places("blocks.*.attn2.pattern") == ("blocks.0.attn2.pattern", "blocks.1.attn2.pattern")
    act, out = longcat.run([5, 6, 7], keep=["blocks.1.mlp2.act", "blocks.1.mlp2.out"]).kept.values()
    assert torch.allclose(act.value @ longcat.weights["blocks.1.mlp2.W_out"], out.value, atol=1e-5)


def test_a_constant_added_to_the_stream_is_no_write():
    with zoo.quiet():
        zaya = pc.load(zoo.build("zaya"))
        assert [s.kind for s in zaya.anatomy.main.blocks[0].steps] == ["shift", "scale", "write"] * 2
        parts = pc.decompose(zaya, [5, 6, 7], pc.logit(8))
    assert "norm biases and shifts" in parts.labels["component"]
    assert float(parts.values.sum()) == pytest.approx(parts.baseline["metric"], abs=1e-4)


def test_stages_are_stacks_of_their_own():
    with zoo.quiet():
        swin = pc.load(zoo.build("swin", "tower"))
    assert [(t.prefix, t.width, len(t.blocks)) for t in swin.anatomy.towers] == [("encoder.", 32, 2), ("encoder2.", 64, 2)]


def test_both_halves_embed_their_own_tokens():
    with zoo.quiet():
        t5, joined = pc.load(zoo.build("t5", "seq2seq")), pc.load(zoo.build("encoder-decoder", "seq2seq"))
    for model in (t5, joined):
        run = model.run([5, 6, 7], keep=["embed.out", "encoder.embed.out"], decoder=torch.tensor([[8, 9]]))
        assert run["embed.out"].shape[:2] == run.tokens.shape == (1, 2)
        assert torch.equal(run["encoder.embed.out"], model.hf.get_input_embeddings()(torch.tensor([[5, 6, 7]])))


def test_towers_are_prefixed():
    with zoo.quiet():
        clip, t5 = pc.load(zoo.build("clip", "base")), pc.load(zoo.build("t5", "seq2seq"))
    assert {t.prefix for t in clip.anatomy.towers} == {"vision.", "text."}
    assert [t.prefix for t in t5.anatomy.towers] == ["encoder.", ""]
    assert t5.places("blocks.*.cross.pattern") and t5.places("encoder.blocks.*.attn.pattern")
    assert t5.anatomy.main.causal and not t5.anatomy.towers[0].causal
    with zoo.quiet():
        spoken = pc.load(zoo.build("seamless_m4t", "speech"))
    assert [t.prefix for t in spoken.anatomy.towers] == ["encoder.", ""]  # an encoder, whatever it reads


def test_shared_layers_are_blocks_of_their_own():
    with zoo.quiet():
        hf = zoo.build("albert", "masked", num_hidden_layers=4)
    model = pc.load(hf)
    assert model.layers == 4 and len({b.module for b in model.anatomy.main.blocks}) == 1
    run = model.run(torch.arange(10).view(2, 5), keep="blocks.*.out")
    streams = run["blocks.*.out"]
    assert not any(torch.equal(a, b) for i, a in enumerate(streams) for b in streams[:i])
    third = model.edit(pc.zero("blocks.2.out")).run(torch.arange(10).view(2, 5), keep="blocks.*.out")["blocks.*.out"]
    assert torch.equal(third[:2], streams[:2]) and (third[2] == 0).all() and not torch.equal(third[3], streams[3])


class Block(nn.Module):
    """A transformer block as somebody else might write it: one fused matrix, attention by hand."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.heads, d // self.heads).unbind(2)
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / (d // self.heads) ** 0.5
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf"))
        z = torch.softmax(scores, -1) @ v.transpose(1, 2)
        x = x + self.proj(z.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.relu(self.up(self.ln2(x))))


class Foreign(nn.Module):
    def __init__(self, container=nn.ModuleList):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(50, 32), nn.Linear(32, 50)
        self.layers = (
            container([Block(32, 4) for _ in range(3)])
            if container is nn.ModuleList
            else container(*[Block(32, 4) for _ in range(3)])
        )
        self.eval()

    def forward(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def test_a_module_of_somebody_elses_is_read_all_the_same():
    model, ids = pc.load(Foreign()), torch.arange(12).view(2, 6)
    assert {s for s in model.sites if s.startswith("blocks.1.")} == {f"blocks.1.{n}" for n in SEQUENTIAL}
    run = model.run(ids, keep=[*model.sites])
    assert torch.equal(run.logits, model.hf(ids))
    pattern = run["blocks.1.attn.pattern"]
    assert (
        pattern.shape == (2, 4, 6, 6) and torch.allclose(pattern.sum(-1), torch.ones(2, 4, 6)) and (pattern.triu(1) == 0).all()
    )
    x = run["blocks.2.attn.in"]
    q = torch.einsum("bpd,hde->bphe", x, model.weights["blocks.2.attn.W_Q"]) + model.weights["blocks.2.attn.b_Q"]
    assert torch.allclose(q, run["blocks.2.attn.q"], atol=1e-5)


def test_the_list_of_blocks_can_be_named():
    with pytest.raises(Unserved, match=r"no list of blocks .* name it with pc.load\(module, blocks="):
        pc.load(Foreign(nn.Sequential)).places("blocks.0.out")
    model = pc.load(Foreign(nn.Sequential), blocks="layers")
    assert model.layers == 3 and "blocks.2.attn.pattern" in model.sites


def test_an_example_can_be_given():
    class Odd(Foreign):
        def forward(self, tokens, *, temperature):
            return super().forward(tokens) / temperature

    with pytest.raises(Unserved, match="could not be run on a small example"):
        pc.load(Odd()).sites  # noqa: B018
    model = pc.load(Odd(), example={"tokens": torch.arange(10).view(2, 5), "temperature": 2.0})
    run = model.run({"tokens": torch.arange(6).view(1, 6), "temperature": 2.0}, keep="blocks.0.out")
    assert run["blocks.0.out"].shape == (1, 6, 32)


def test_a_module_in_training_mode_is_refused():
    hf = zoo.build("gpt2", resid_pdrop=0.1).train()
    with pytest.raises(NotAModel, match=r"call \.eval\(\) first"):
        pc.load(hf)


def test_raw_modules_are_reachable(llama, ids):
    run = llama.run(ids, keep=["@model.layers.0.mlp.act_fn.out", "@model.layers.1.self_attn.in", "blocks.1.attn.in"])
    assert torch.equal(run["@model.layers.1.self_attn.in"], run["blocks.1.attn.in"])
    assert run["@model.layers.0.mlp.act_fn.out"].shape == (2, 7, 96)
    halved = llama.edit(pc.Edit("@model.layers.0.mlp.act_fn.out[pos=-1]", lambda v: v / 2)).run(ids)
    assert not torch.equal(halved.logits[:, -1], llama.run(ids).logits[:, -1])
    with pytest.raises(UnknownSite, match="Did you mean"):
        llama.run(ids, keep="@model.layers.0.mlp.act_fm.out")


def test_a_module_that_never_runs_is_an_error(llama, ids):
    llama.hf.add_module("idle", nn.Identity())
    try:
        llama.body.__dict__.pop("expand", None)
        with pytest.raises(NeverFired, match="never came by @idle.out"):
            llama.run(ids, keep="@idle.out")
    finally:
        del llama.hf.idle


def test_the_table_shows_itself(gpt2, capsys):
    gpt2.sites.show()
    shown = capsys.readouterr().out
    assert "blocks.i.attn.pattern" in shown and "0 to 1" in shown and "not served: it has no gate" in shown
    assert "blocks.1.out" in gpt2.sites and gpt2.sites[0] == "embed.out" and len(gpt2.sites) == 33
