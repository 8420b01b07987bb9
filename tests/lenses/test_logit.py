"""The logit lens against one made by hand: the bare Hugging Face model's final norm and unembedding on its hidden states."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

import patchclamp as pc
import zoo
from patchclamp.core.errors import UnknownSite, Unserved, WrongAxis

IDS = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [40, 51, 42, 53, 44, 55, 46]])
ENDS = {
    "gpt2": ("causal", lambda hf, h: hf.lm_head(hf.transformer.ln_f(h))),
    "llama": ("causal", lambda hf, h: hf.lm_head(hf.model.norm(h))),
    "gpt_neox": ("causal", lambda hf, h: hf.lm_head(hf.gpt_neox.final_layer_norm(h))),
    "gemma2": ("causal", lambda hf, h: 30 * torch.tanh(hf.lm_head(hf.model.norm(h)) / 30)),
    "granite": ("causal", lambda hf, h: hf.lm_head(hf.model.norm(h)) / 4),
    "mamba": ("causal", lambda hf, h: hf.lm_head(hf.backbone.norm_f(h))),
    "bert": ("masked", lambda hf, h: hf.cls(h)),
    "t5": ("seq2seq", lambda hf, h: hf.lm_head(hf.decoder.final_layer_norm(h) / 8)),
}
"""How each family's own end turns a stream into logits, as its modelling file writes it."""


def open_(kind, **more):
    task, end = ENDS[kind]
    with zoo.quiet():
        model = pc.load(zoo.build(kind, task, **more))
    if task == "seq2seq":
        model.hf.generation_config.decoder_start_token_id = 0
    return model, end


def by_hand(kind, model, end):
    """The logits of every layer (layer, batch, pos, vocab), and the model's."""
    hf, more = model.hf, {}
    if model.hf.config.is_encoder_decoder:
        more = {"decoder_input_ids": torch.zeros(2, 1, dtype=torch.long)}
    with torch.no_grad(), zoo.quiet():
        out = hf(IDS, output_hidden_states=True, **more)
        hidden = out.decoder_hidden_states if more else out.hidden_states
        first = 0 if kind == "mamba" else 1  # the embedding comes before the blocks; mamba leaves it out
        early = [end(hf, h) for h in hidden[first : first + model.layers - 1]]
    return torch.stack([*early, out.logits]), out.logits


@pytest.mark.parametrize("kind", ENDS)
def test_it_is_the_models_own_end_on_every_hidden_state(kind):
    model, end = open_(kind)
    said, _ = by_hand(kind, model, end)
    with zoo.quiet():
        grid = pc.lens(model, IDS)
    assert grid.axes == ("layer", "prompt", "pos") and grid.values.shape == said.shape[:3]
    p, top = said.softmax(-1).max(-1)
    assert torch.allclose(grid.values, p, atol=1e-5)
    assert grid.text == [[[str(int(t)) for t in row] for row in layer] for layer in top]  # without a tokenizer, ids


@pytest.mark.parametrize("kind", ENDS)
def test_the_details_are_what_they_are_called(kind):
    model, end = open_(kind)
    said, logits = by_hand(kind, model, end)
    with zoo.quiet():
        grid = pc.lens(model, IDS)
    truth, reading = Categorical(logits=logits), Categorical(logits=said)
    assert torch.allclose(grid.details["KL"], kl_divergence(truth, reading), atol=1e-5)
    assert torch.allclose(grid.details["entropy"], reading.entropy(), atol=1e-4)
    order = said.argsort(-1, descending=True)
    rank = (order == logits.argmax(-1)[..., None]).int().argmax(-1).float()
    assert torch.equal(grid.details["rank"], rank)


@pytest.mark.parametrize("kind", ENDS)
def test_at_the_last_layer_it_is_the_output(kind):
    model, _ = open_(kind)
    with zoo.quiet():
        grid = pc.lens(model, IDS)
        p = model.run(IDS).logits.softmax(-1)
    assert torch.equal(grid.details["KL"][-1], torch.zeros_like(grid.values[-1]))  # one product, the very one of the output
    assert torch.equal(grid.details["rank"][-1], torch.zeros_like(grid.values[-1]))
    assert torch.allclose(grid.values[-1], p.amax(-1), atol=1e-6)


@pytest.mark.parametrize("site", ["blocks.*.mid", "blocks.*.mlp.out", "blocks.*.attn.out", "blocks.*.in"])
def test_any_place_of_the_streams_width_can_be_read(llama, site):
    run = llama.run(IDS, keep=site)
    with torch.no_grad():
        said = llama.hf.lm_head(llama.hf.model.norm(run[site])).softmax(-1)
    grid = pc.lens(llama, IDS, site)
    assert torch.allclose(grid.values, said.amax(-1), atol=1e-5) and list(grid.words("layer")) == ["0", "1"]


@pytest.mark.parametrize(("site", "shape"), [
    ("blocks.*.attn.z[head=*]", {"layer": 2, "head": 4, "pos": 7}),
    ("blocks.*.attn.z[head=2]", {"layer": 2, "pos": 7}),
    ("blocks.1.mlp.act[neuron=5:9]", {"neuron": 4, "pos": 7}),
    ("blocks.*.*.out", {"layer": 2, "component": 2, "pos": 7}),
])  # fmt: skip
def test_every_star_is_an_axis(llama, site, shape):
    grid = pc.lens(llama, IDS[:1], site)
    assert grid.shape == shape and all(v.shape == grid.values.shape for v in grid.details.values())
    if "neuron" in shape:
        assert list(grid.words("neuron")) == ["5", "6", "7", "8"]


def test_a_head_is_read_as_its_write_by_hand(llama):
    """Head 2 of the last block: z times its rows of the output matrix, then Hugging Face's own norm and head."""
    attention, run = llama.hf.model.layers[1].self_attn, llama.run(IDS, "blocks.1.attn.z")
    with torch.no_grad():
        write = run["blocks.1.attn.z"][:, :, 2] @ attention.o_proj.weight[:, 32:48].T
        said = llama.hf.lm_head(llama.hf.model.norm(write)).softmax(-1)
    grid = pc.lens(llama, IDS, "blocks.*.attn.z[head=*]")
    assert grid.axes == ("layer", "head", "prompt", "pos")
    assert torch.allclose(grid.values[1, 2], said.amax(-1), atol=1e-5)
    assert torch.equal(grid.details["token"][1, 2], said.argmax(-1).float())


def test_a_neuron_is_read_as_its_row(gpt2):
    run = gpt2.run(IDS, "blocks.0.mlp.act")
    with torch.no_grad():
        write = run["blocks.0.mlp.act"][..., 7:8] * gpt2.hf.transformer.h[0].mlp.c_proj.weight[7]
        said = gpt2.hf.lm_head(gpt2.hf.transformer.ln_f(write)).softmax(-1)
    assert torch.allclose(pc.lens(gpt2, IDS, "blocks.0.mlp.act[neuron=7]").values[0], said.amax(-1), atol=1e-5)


def test_a_translator_is_told_the_place_and_changes_what_is_read(llama):
    told = []

    def last_layers_stream(path, stream):
        told.append(path)
        return final if stream.shape == final.shape else stream

    final = llama.run(IDS, "blocks.1.out")["blocks.1.out"]
    grid = pc.lens(llama, IDS, through=last_layers_stream)
    assert told == ["blocks.0.out", "blocks.1.out"] and torch.equal(grid.details["KL"], torch.zeros(2, 2, 7))
    told.clear()
    pc.lens(llama, IDS, "blocks.0.attn.z[head=1:3]", through=last_layers_stream)
    assert told == ["blocks.0.attn.z[head=1]", "blocks.0.attn.z[head=2]"]
    same = pc.lens(llama, IDS, through=lambda path, stream: stream)
    assert torch.equal(same.values, pc.lens(llama, IDS).values) and (same.title, pc.lens(llama, IDS).title) == (
        "Lens",
        "Logit lens",
    )


def test_the_model_is_run_once(llama, monkeypatch):
    """One forward over the prompt; each reading costs the end only."""
    calls = []
    forward = type(llama.hf.model.layers[0].mlp).forward
    monkeypatch.setattr(type(llama.hf.model.layers[0].mlp), "forward", lambda self, x: calls.append(1) or forward(self, x))
    pc.lens(llama, IDS)
    assert len(calls) == 2


def test_several_sites_are_rows_of_their_own(llama):
    grid = pc.lens(llama, IDS[:1], ["embed.out", "blocks.0.mid", "blocks.*.out"])
    assert grid.axes == ("layer", "pos")
    assert list(grid.words("layer")) == ["embed.out", "blocks.0.mid", "blocks.0.out", "blocks.1.out"]
    assert torch.equal(grid.values[2:], pc.lens(llama, IDS[:1]).values)


def test_a_prompt_in_a_padded_batch_reads_as_it_does_alone(gpt2):
    prompts = [[30, 31, 32, 33, 34], [40, 41], [50, 51, 52]]
    batch = pc.lens(gpt2, prompts)
    assert batch.shape == {"layer": 2, "prompt": 3, "pos": 5}
    assert list(batch.words("prompt")) == ["30 31 32 33 34", "40 41", "50 51 52"]
    for r, prompt in enumerate(prompts):
        alone, n = pc.lens(gpt2, prompt), len(prompt)
        assert torch.allclose(batch.values[:, r, :n], alone.values, atol=1e-5)
        assert [row[r][:n] for row in batch.text] == alone.text
        assert torch.allclose(batch.details["KL"][:, r, :n], alone.details["KL"], atol=1e-5)
        assert bool(batch.values[:, r, n:].isnan().all()) and {w for row in batch.text for w in row[r][n:]} <= {""}
    batch.at(prompt=1).picture()


def test_a_story(stories):
    grid = pc.lens(stories, "Once upon a time, there was a little girl named")
    assert grid.shape == {"layer": 5, "pos": 14} and list(grid.words("pos"))[-1] == " named"
    assert grid.text[-1][-1] == " Lily" and abs(float(grid.values[-1, -1]) - 0.926) < 5e-4
    assert float(grid.details["rank"][0, -1]) > 0  # the first block does not know the name yet
    assert float(grid.details["KL"][0, -1]) > float(grid.details["KL"][-2, -1])


def test_an_edited_model_is_read_as_edited(llama):
    edited = llama.edit(pc.zero("blocks.1.attn.out"), pc.zero("blocks.1.mlp.out"))
    grid = pc.lens(edited, IDS)
    assert torch.allclose(grid.values[0], grid.values[1], atol=1e-6)  # the last block now adds nothing
    assert torch.allclose(grid.details["KL"][0], torch.zeros_like(grid.values[0]), atol=1e-5)


def test_logits_of_minus_infinity_are_impossible_tokens_not_errors():
    class Banned(torch.nn.Module):
        """Two blocks, and a head that forbids a token."""

        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(99, 16)
            self.layers = torch.nn.ModuleList([Add(), Add()])
            self.head = torch.nn.Linear(16, 99, bias=False)

        def forward(self, input_ids):
            x = self.embed(input_ids)
            for layer in self.layers:
                x = layer(x)
            logits = self.head(x)
            return torch.cat([logits[..., :-1], torch.full_like(logits[..., -1:], -torch.inf)], -1)

    class Add(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = torch.nn.Linear(16, 16)

        def forward(self, x):
            return x + self.mlp(x)

    torch.manual_seed(0)
    grid = pc.lens(pc.load(Banned()), IDS[:1])
    assert bool(grid.details["KL"].isfinite().all()) and bool(grid.details["entropy"].isfinite().all())
    assert torch.equal(grid.details["KL"][-1], torch.zeros(7)) and bool((grid.details["KL"][0] > 0).all())


@pytest.mark.parametrize(
    ("site", "error", "says"),
    [
        (
            "blocks.*.attn.z",
            Unserved,
            r"blocks.0.attn.z has the axes batch pos head d_head; blocks.\*.attn.z\[head=\*\] reads what",
        ),
        ("blocks.*.mlp.act", Unserved, "such as blocks.*.out; blocks.0.mlp.act has the axes batch pos neuron"),
        ("blocks.*.out[pos=-1]", WrongAxis, r"a lens reads whole places; take blocks.*.out, and then grid.at\(pos=...\)"),
        ("blocks.*.uot", UnknownSite, "Did you mean"),
        ("logits", Unserved, "logits has the axes batch pos vocab"),
        ("@model.layers.0", UnknownSite, "end it with"),
        ("@model.layers.0.out", Unserved, "@model.layers.0.out is not one"),
    ],
)
def test_places_it_cannot_read_are_named(llama, site, error, says):
    with pytest.raises(error, match=says):
        pc.lens(llama, IDS, site)


def test_an_encoders_stream_does_not_lead_to_the_logits():
    model, _ = open_("t5")
    with zoo.quiet(), pytest.raises(Unserved, match="encoder.blocks.0.out is not one"):
        pc.lens(model, IDS, "encoder.blocks.*.out")


def test_a_model_without_logits_has_nothing_to_say():
    model = pc.load(zoo.build("gpt2", "base"))
    with pytest.raises(Unserved, match="returns no logits"):
        pc.lens(model, IDS)
