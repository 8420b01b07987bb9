"""A sweep that was stopped comes out, resumed, the same to the bit, and what is known is not run again."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.cause.ablate import ablate
from patchclamp.circuit.acdc import acdc
from patchclamp.circuit.edges import edges
from patchclamp.circuit.mask import Gates, learned
from patchclamp.core.journal import keeping
from patchclamp.model import replay
from patchclamp.model.measure import fingerprint

OTHER = torch.cat([torch.arange(20, 34).view(2, 7)[:, :3], torch.arange(50, 58).view(2, 4)], 1)

GATES = Gates(steps=8)


class Watched:
    """A metric that counts how often it is read, and can be stopped by hand at one of these times."""

    def __init__(self, stop=None):
        self.reads, self.stop = 0, stop

    def __call__(self, logits):
        self.reads += 1
        if self.reads == self.stop:
            raise KeyboardInterrupt
        return logits[:, -1, 5] - logits[:, -1, 9]


WORK = {
    "effects": lambda model, ids, metric: pc.effects(model, ids, OTHER, "blocks.*.out[pos=*]", metric).each,
    "ablate": lambda model, ids, metric: ablate(model, ids, "blocks.*.attn.z[head=*]", metric).each,
    "edges": lambda model, ids, metric: torch.tensor([e.weight for e in edges(model, ids, OTHER, metric).edges]),
    "mask": lambda model, ids, metric: torch.tensor([e.weight for e in learned(model, ids, OTHER, metric, gates=GATES).edges]),
    "acdc": lambda model, ids, metric: torch.tensor([e.weight for e in acdc(model, ids, OTHER, 1e-3, metric).edges]),
}


@pytest.mark.parametrize(("name", "small"), [("effects", False), *((name, True) for name in WORK)])
def test_stopped_and_resumed_is_the_same_to_the_bit(gpt2, ids, name, small, tmp_path, monkeypatch):
    if small:
        monkeypatch.setattr(replay, "TOKENS", 16)
    work, whole = WORK[name], Watched()
    expected = work(gpt2, ids, whole)
    stopped = Watched(stop=whole.reads * 3 // 4)
    with pytest.raises(KeyboardInterrupt), keeping(tmp_path / "work") as journal:
        work(gpt2, ids, stopped)
    assert journal.count > 0
    resumed = Watched()
    with keeping(tmp_path / "work"):
        found = work(gpt2, ids, resumed)
    assert torch.equal(found, expected)
    assert not small or resumed.reads < whole.reads


def test_what_is_all_known_is_not_run_at_all(gpt2, ids, tmp_path, monkeypatch):
    with keeping(tmp_path):
        expected = WORK["effects"](gpt2, ids, Watched())
    monkeypatch.setattr("patchclamp.model.measure.sweep", pytest.fail)
    with keeping(tmp_path):
        assert torch.equal(WORK["effects"](gpt2, ids, Watched()), expected)


def test_a_model_is_known_by_its_weights_and_edits():
    one, other = pc.load(zoo.build("gpt2")), pc.load(zoo.build("gpt2"))
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(one.edit(pc.zero("blocks.0.mlp.out")))
    with torch.no_grad():
        list(other.hf.parameters())[-1][-1] += 1e-3
    assert fingerprint(one) != fingerprint(other)
