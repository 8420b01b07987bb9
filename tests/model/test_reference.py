"""Every intermediate of a published checkpoint, as another implementation computed it (bbycroft/llm-viz, gpt-nano-sort)."""

import pytest
import torch
from safetensors.torch import load_file

import patchclamp as pc

FIRST = "blocks.0"
NAMES = {
    "ln1": f"{FIRST}.attn.in", "attSm": f"{FIRST}.attn.pattern", "yProj": f"{FIRST}.attn.out", "attnResid": f"{FIRST}.mid",
    "ln2": f"{FIRST}.mlp.in", "fc": f"{FIRST}.mlp.pre", "gelu": f"{FIRST}.mlp.act", "mlp": f"{FIRST}.mlp.out", "mlpResid": f"{FIRST}.out",
    "block0": "blocks.0.out", "block1": "blocks.1.out", "block2": "blocks.2.out", "tok_emb": "embed.out", "x": "blocks.0.in",
    "ln_f": "norm.out", "lm_head": "logits",
}  # fmt: skip


@pytest.fixture(scope="module")
def sort(shared):
    return pc.load(shared / "models" / "gpt-nano-sort")


@pytest.fixture(scope="module")
def reference(shared):
    return load_file(shared / "models" / "gpt-nano-sort" / "reference_activations.safetensors")


@pytest.fixture(scope="module")
def run(sort, reference):
    return sort.run(reference["idx"].long(), keep=sort.sites)


@pytest.mark.parametrize("name", NAMES)
def test_the_stream_and_the_layers(run, reference, name):
    assert torch.allclose(run[NAMES[name]], reference[name], atol=1e-5), float((run[NAMES[name]] - reference[name]).abs().max())


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_the_heads(run, reference, name):
    assert torch.allclose(run[f"{FIRST}.attn.{name}"].transpose(1, 2), reference[name], atol=1e-5)


def test_the_scores(run, reference):
    seen = torch.ones(11, 11).tril().bool()
    ours, theirs = run[f"{FIRST}.attn.scores"], reference["att"]
    assert torch.allclose(ours[..., seen], theirs[..., seen], atol=1e-5)


def test_what_the_heads_bring_together(run, reference):
    assert torch.allclose(run[f"{FIRST}.attn.z"].flatten(2), reference["y"], atol=1e-5)
    assert torch.allclose(run.logits.softmax(-1), reference["probs"], atol=1e-5)


def test_it_sorts(sort):
    digits = torch.randint(0, 3, (500, 6), generator=torch.Generator().manual_seed(0))
    ids = digits
    for _ in range(6):
        ids = torch.cat([ids, sort.run(ids[:, :11]).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(ids[:, 6:], digits.sort(1).values)


def test_a_real_story(stories):
    run = stories.run("Once upon a time, there was a little girl named Lily. She loved to play outside.")
    p = run.logits[0, :-1].log_softmax(-1).gather(1, run.tokens[0, 1:, None])
    assert abs(float(-p.mean()) - 0.2803) < 1e-3  # nats a token, from the checkpoint's card
    best = stories.run("Once upon a time, there was a little girl named").next().top(1)[0]
    assert best[0]["vocab"] == " Lily" and abs(best[1] - 0.926) < 5e-4


def test_an_albert_that_knows_chemistry(shared):
    import csv

    model = pc.load(shared / "models" / "rxnmapper-albert")
    with open(shared / "models" / "rxnmapper-albert" / "example_rxns.csv") as file:
        reactions = [row["rxn"] for row in csv.DictReader(file)][:4]
    right = total = 0
    for reaction in reactions:
        ids = model.tokenizer(reaction)["input_ids"]
        for at in range(2, len(ids) - 1, 6):
            masked = [*ids[:at], model.tokenizer.mask_token_id, *ids[at + 1 :]]
            run = model.run(masked)
            assert run.last == [at]
            right += int(run.logits[0, at].argmax()) == ids[at]
            total += 1
    assert right / total > 0.95 and total > 40
