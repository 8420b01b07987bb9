"""Parts: what single heads and single neurons write into the stream.

A layer's write is a sum over its heads (or neurons) and a bias, carried through whatever norms and factors a family puts behind
its last matrix. A norm there is held at the scale it had in this run, so that the parts add up to the layer's write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.model.anatomy import Write
from patchclamp.model.model import Model

Written = Float[Tensor, "part batch place d_model"]
KINDS = {"z": "head", "act": "neuron"}
"""Places whose entries write by themselves, and the axis that tells the entries apart."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The heads of an attention layer, or the neurons of a feed-forward one, at a concrete site.

    >>> from patchclamp.lenses.parts import Parts
    >>> heads = Parts.of(model, "blocks.2.attn.z[head=*]")
    >>> run = model.run(clean, [*heads.reads, "blocks.2.attn.out"])
    >>> torch.allclose(heads.written(run, range(8)).sum(0), run["blocks.2.attn.out"], atol=1e-4)
    True
    """

    model: Model
    path: str
    write: Write
    entries: tuple[int, ...]
    """Which of them the site names."""

    @classmethod
    def of(cls, model: Model, site: str | Site, path: str | None = None) -> Parts:
        """The parts that a site names at one of its places."""
        site = Site.parse(site)
        path = path or model.places(site)[0]
        write = writing(model, path)
        axis = KINDS[path.rpartition(".")[2]]
        other = [a for a, _ in site.index if a != axis]
        if other or not site.index:
            raise WrongAxis(f"a lens reads whole places, or their parts: {site.path}[{axis}=*]; and then grid.at(...).")
        if not write.linear or any(m not in write.matrices for m in ("o" if axis == "head" else "out",)):
            raise Unserved(
                f"{path} reaches the stream through more than one matrix, so what each {axis} writes cannot be told."
            )
        count, wanted = model.anatomy.places[path].sizes[axis], site.index[0][1]
        if isinstance(wanted, int) and not -count <= wanted < count:
            raise WrongAxis(f"{site} is outside: the axis {axis} has {count} entries, 0 to {count - 1}.")
        entries = wanted.of(count) if isinstance(wanted, Span) else [wanted % count] if isinstance(wanted, int) else []
        return cls(model, path, write, tuple(entries))

    @property
    def layer(self) -> str:
        """The place of the layer, `blocks.2.attn`."""
        return self.path.rpartition(".")[0]

    @property
    def reads(self) -> tuple[str, ...]:
        """The places that a run must keep."""
        return (self.path, *(f"@{n}.{side}" for n in self.write.norms for side in ("in", "out")))

    def written(self, run: Run, entries: Sequence[int]) -> Written:
        """What some of them write, in a run that kept what they read."""
        value, chosen = run.kept[self.path].value, list(entries)
        if self.path.endswith(".z"):
            out = self.model.weights[f"{self.layer}.W_O"][chosen]
            made = torch.einsum("bphe,hed->hbpd", value[:, :, chosen], out)
        else:
            out = self.model.weights[f"{self.layer}.W_out"][chosen]
            made = value[..., chosen].movedim(-1, 0)[..., None] * out[:, None, None]
        for name in self.write.norms:
            norm = self.model.weights.norm(name)
            scale = norm.scale(run[f"@{name}.in"], run[f"@{name}.out"])
            made = norm.carry(made.float(), scale.expand(*made.shape[1:-1], 1)).to(made.dtype)
        for factor in self.write.factors:
            made = made * factor
        return made


def writing(model: Model, path: str) -> Write:
    """The write that a place of heads or neurons belongs to."""
    block = next((b for b in model.anatomy.main.blocks if path.startswith(b.path + ".")), None)
    write = block.write(str(Site.parse(path).parts[-2])) if block is not None else None
    if write is None:
        raise Unserved(f"{path} does not lie in the stack that leads to the logits, so nothing reads what it writes there.")
    return write
