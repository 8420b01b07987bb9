"""What heads and neurons write: together, and with the bias, the layer's write, whatever norms and factors a family has."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import PatchclampError, Unserved, WrongAxis
from patchclamp.lenses.parts import Parts

IDS = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [40, 51, 42, 53, 44, 55, 46]])
KINDS = ("gpt2", "llama", "gemma2", "gpt_neox", "granite", "olmo2", "cohere", "bert")


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    with zoo.quiet():
        return pc.load(zoo.build(request.param, "masked" if request.param == "bert" else "causal"))


@pytest.mark.parametrize(("site", "bias"), [("attn.z[head=*]", "attn.b_O"), ("mlp.act[neuron=*]", "mlp.b_out")])
def test_they_add_up_to_the_layer(model, site, bias):
    for layer in range(2):
        parts = Parts.of(model, f"blocks.{layer}.{site}")
        place = parts.layer
        run = model.run(IDS, [*parts.reads, f"{place}.out"])
        whole = parts.written(run, parts.entries).sum(0)
        rest = model.weights[f"blocks.{layer}.{bias}"]
        for name in parts.write.norms:
            assert not rest.any()
            rest = rest + model.weights.norm(name).bias
        for factor in parts.write.factors:
            rest = rest * factor
        assert torch.allclose(whole + rest, run[f"{place}.out"], atol=1e-5)


def test_some_of_them_are_those_of_all(llama):
    some, every = Parts.of(llama, "blocks.1.attn.z[head=1:3]"), Parts.of(llama, "blocks.1.attn.z[head=*]")
    run = llama.run(IDS, every.reads)
    assert some.entries == (1, 2) and every.entries == (0, 1, 2, 3)
    assert torch.allclose(some.written(run, [2]), every.written(run, range(4))[2:3], atol=1e-6)
    assert Parts.of(llama, "blocks.1.attn.z[head=-1]").entries == (3,)


@pytest.mark.parametrize(
    ("site", "error", "says"),
    [
        ("blocks.0.attn.z[head=9]", WrongAxis, "the axis head has 4 entries, 0 to 3"),
        ("blocks.0.attn.z[pos=1]", WrongAxis, r"a lens reads whole places, or their parts: blocks.0.attn.z\[head=\*\]"),
        ("blocks.0.attn.z", WrongAxis, "a lens reads whole places, or their parts"),
    ],
)
def test_what_is_no_part_is_said(llama, site, error, says):
    with pytest.raises(error, match=says):
        Parts.of(llama, site)


def test_a_mixture_has_no_neurons_of_its_own():
    with zoo.quiet():
        model = pc.load(zoo.build("mixtral"))
        with pytest.raises(PatchclampError, match="mlp"):
            pc.lens(model, IDS, "blocks.0.mlp.act[neuron=0]")


def test_an_encoders_heads_are_not_read():
    with zoo.quiet():
        model = pc.load(zoo.build("t5", "seq2seq"))
        model.hf.generation_config.decoder_start_token_id = 0
        with pytest.raises(Unserved):
            pc.lens(model, IDS, "encoder.blocks.*.attn.z[head=*]")
