"""Shortest: of a planted bigram exactly its two tokens are left, of a single token one."""

import pytest

import planted_neurons as planted
from patchclamp.core.errors import WrongPrompt
from patchclamp.model.activating import activating
from patchclamp.model.shortest import shortest


@pytest.fixture(scope="module")
def model():
    return planted.model()


@pytest.fixture(scope="module")
def found(model):
    return activating(model, "blocks.0.mlp.act[neuron=*]", planted.texts(100, [planted.BIGRAM]))


@pytest.mark.parametrize(("unit", "expected"), [(0, ("7", "9")), (2, ("9",))])
def test_only_what_it_takes_is_left(model, found, unit, expected):
    cut = shortest(model, f"blocks.0.mlp.act[neuron={unit}]", found.examples(model, unit)[0])
    assert cut.words == cut.pattern == expected and cut.value == pytest.approx(cut.whole, abs=1e-4)
    assert all(lost == pytest.approx(1, abs=0.2) for lost in cut.importance)


def test_what_may_be_anything_is_left_open(model, found):
    """With a unit that reads only the token before, the active token is open."""
    import torch

    along = torch.zeros(model.width)
    along[planted.VOCAB + planted.LENGTH + 7] = 1.0
    seen = activating(model, "blocks.0.mid", planted.texts(100, [planted.BIGRAM]), along=along)
    cut = shortest(model, "blocks.0.mid", seen.examples(model, 0)[0], along=along)
    assert cut.pattern[0] == "7" and cut.pattern[1] is None and str(cut) == "7 …"
    assert "share lost" in cut.picture().html()


def test_mistakes_are_told(model, found):
    example = found.examples(model, 0)[0]
    with pytest.raises(WrongPrompt, match="names 6 units; say unit="):
        shortest(model, "blocks.0.mlp.act[neuron=*]", example)
    with pytest.raises(WrongPrompt, match="above 0 and up to 1"):
        shortest(model, "blocks.0.mlp.act[neuron=0]", example, least=0.0)
    silent = found.examples(model, 0, "bottom")[0]
    with pytest.raises(WrongPrompt, match="nothing to keep"):
        shortest(model, "blocks.0.mlp.act[neuron=0]", silent)
