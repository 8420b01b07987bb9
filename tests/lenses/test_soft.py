"""The learned prompt: only embeddings are learned, what is read comes from the vector, and training helps."""

from itertools import islice
from random import Random

import pytest
import torch

from patchclamp.core.errors import WrongAxis, WrongPrompt
from patchclamp.lenses.soft import SoftPrompt
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as world


@pytest.fixture(scope="module")
def texts():
    return sorted(islice(documents(world(0), seed="soft"), 600), key=len)[:300]


def test_moments_are_those_of_the_text(town, texts):
    """The stream, the predictions and the continuation belong to one token: the text run alone says the same."""
    some = SoftPrompt.untrained(town, "blocks.1.out", length=2, ahead=3).moments(town, texts[:4], Random(0))
    for r, text in enumerate(texts[:4]):
        run = town.run(text, "blocks.1.out")
        stream = run["blocks.1.out"][0]
        at = int((stream - some.stream[r]).norm(dim=-1).argmin())
        assert torch.allclose(stream[at], some.stream[r], atol=1e-4)
        assert run.tokens[0, at + 1 : at + 4].tolist() == some.following[r].tolist()
        assert torch.allclose(run.logits[0, at : at + 3].log_softmax(-1), some.said[r], atol=1e-3)


def test_training_makes_the_model_say_more_of_what_is_coming(town, texts):
    """Before training the model reads the vector's next token off; the ones after it need the prompt."""
    before = {name: p.clone() for name, p in town.hf.named_parameters()}
    start = SoftPrompt.untrained(town, "blocks.1.out", length=6, ahead=2)
    prompt = start.train(town, texts[:200], steps=30)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in town.hf.named_parameters())
    assert sum(prompt.losses[-10:]) < 0.8 * sum(prompt.losses[:10])
    trained, untrained = (p.accuracy(town, texts[200:]).values for p in (prompt, start))
    assert float(trained[1, 0]) > float(untrained[1, 0]) and float(trained[0, 0]) > float(trained[0, 1]) + 0.3


def test_what_is_no_place_or_too_short_is_said(town):
    with pytest.raises(WrongAxis, match=r"a learned prompt is for one place, such as blocks.5.out"):
        SoftPrompt.untrained(town, "blocks.*.out")
    with pytest.raises(WrongPrompt, match="longer than the 3 tokens"):
        SoftPrompt.untrained(town, "blocks.1.out").train(town, ["Mary"], steps=1)
