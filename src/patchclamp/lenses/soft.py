"""A learned prompt that makes a model say what a hidden state is about to lead to.

Pal et al. 2023, "Future Lens", the causal way: the model reads a prompt of a few free embeddings; at the last of them, after
some block, its stream gives way to one taken from a text; and the embeddings are trained so that it goes on as it did in that
text (KL from the model's own predictions, its true continuation given while training). The weights stay as they are: only the
way of asking is learned. It is judged with nothing given: the model writes on from the one vector by itself. Controls: the
same prompt before training, and the same prompt with the vector of another text (`accuracy` shows this beside).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.axes import Directions
from patchclamp.core.edit import patch
from patchclamp.core.errors import WrongAxis, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.model import Model

BATCH, RATE = 32, 0.02


@dataclass(frozen=True, eq=False)
class Moments:
    """Tokens of texts: the stream there, what the model says from there on, and how the text goes on."""

    stream: Directions
    said: Float[Tensor, "batch ahead vocab"]
    """Log-probabilities."""
    following: Int[Tensor, "batch ahead"]


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Embeddings, the place at which a stream is taken and put in, and how many tokens are read.

    >>> from patchclamp.lenses.soft import SoftPrompt
    >>> prompt = SoftPrompt.untrained(model, "blocks.1.out", length=4, ahead=2)
    >>> model.run(clean, "blocks.1.out")["blocks.1.out[pos=-1]"].shape, prompt.embeddings.shape
    (torch.Size([1, 128]), torch.Size([4, 128]))
    """

    site: str
    embeddings: Float[Tensor, "pos d_model"]
    ahead: int
    losses: tuple[float, ...] = ()
    """The divergence in nats at each step of the training."""

    @classmethod
    def untrained(cls, model: Model, site: str | Site, length: int = 10, ahead: int = 3, seed: int = 0) -> SoftPrompt:
        """The embeddings of tokens chosen by chance: where training begins."""
        site = Site.parse(site)
        if site.index or site.stars:
            raise WrongAxis(f"{site}: a learned prompt is for one place, such as blocks.5.out.")
        table = model.weights["embed.W_E"]
        chosen = torch.randint(len(table), (length,), generator=torch.Generator().manual_seed(seed))
        return cls(str(site), table[chosen].detach().float().clone(), ahead)

    def train(self, model: Model, texts: Sequence, steps: int = 300, seed: int = 0) -> SoftPrompt:
        """The prompt after so many steps of Adam, each on some tokens of some of the texts."""
        free, rng, losses = self.embeddings.clone().requires_grad_(), Random(f"soft {seed}"), []
        optimizer = torch.optim.Adam([free], lr=RATE * float(self.embeddings.std()) * 10)
        for _ in progress(range(steps), label="learned prompt"):
            some = self.moments(model, rng.sample(list(texts), min(BATCH, len(texts))), rng)
            logits = self._ask(model, some.stream, free, some.following[:, :-1], grad=True)
            loss = (some.said.exp() * (some.said - logits.float().log_softmax(-1))).sum(-1).mean()
            (free.grad,) = torch.autograd.grad(loss, [free])
            optimizer.step()
            losses.append(float(loss.detach()))
        return SoftPrompt(self.site, free.detach(), self.ahead, tuple(losses))

    def moments(self, model: Model, texts: Sequence, rng: Random) -> Moments:
        """One token of each text, chosen by chance among those that the text goes on after for long enough."""
        run = model.run(list(texts), self.site)
        windows = [list(run.windows[""].tokens(r)) for r in range(len(texts))]
        if min(map(len, windows)) <= self.ahead:
            raise WrongPrompt(f"each text must be longer than the {self.ahead} tokens that are read ahead.")
        starts = [rng.randrange(len(w) - self.ahead) for w in windows]
        stream = torch.stack([run.kept[self.site].value[r, w[t]] for r, (w, t) in enumerate(zip(windows, starts))])
        columns = [w[t : t + self.ahead] for w, t in zip(windows, starts)]
        said = torch.stack([run.logits[r, c] for r, c in enumerate(columns)]).float().log_softmax(-1)
        following = torch.stack([run.tokens[r, [i + 1 for i in c]] for r, c in enumerate(columns)])
        return Moments(stream, said, following)

    def write(self, model: Model, stream: Directions) -> Int[Tensor, "batch ahead"]:
        """The tokens that the model writes from a stream alone, greedily."""
        made = torch.empty(len(stream), 0, dtype=torch.long, device=stream.device)
        for _ in range(self.ahead):
            logits = self._ask(model, stream, self.embeddings, made)
            made = torch.cat([made, logits[:, -1:].argmax(-1)], 1)
        return made

    def accuracy(self, model: Model, texts: Sequence, seed: int = 0) -> Grid:
        """How often what is written is what the model itself puts first, so many tokens on: Grid(ahead, reader).

        Beside it the same prompt given the streams of other texts: what it would say anyway.
        """
        some = self.moments(model, list(texts), Random(f"soft accuracy {seed}"))
        truth = some.said.argmax(-1)
        rows = [(self.write(model, stream) == truth).float().mean(0).cpu() for stream in (some.stream, some.stream.roll(1, 0))]
        labels = {"ahead": [f"+{n + 1}" for n in range(self.ahead)], "reader": ["this text's stream", "another text's"]}
        return Grid(torch.stack(rows, 1), ("ahead", "reader"), labels, unit="fraction", scale="sequential",
                    title=f"A learned prompt at {self.site}", note=f"{len(truth)} texts, a token of each.")  # fmt: skip

    def _ask(self, model: Model, stream: Directions, embeddings: Float[Tensor, "pos d_model"],
             given: Int[Tensor, "batch given"], grad: bool = False) -> Float[Tensor, "batch given+1 vocab"]:  # fmt: skip
        """The logits after the prompt with the stream put in, and after each further token that is given."""
        length = len(embeddings)
        ids = torch.cat([given.new_zeros(len(stream), length), given], 1)
        asked = model.edit(
            patch(f"embed.out[pos=0:{length}]", embeddings), patch(f"{self.site}[pos={length - 1}]", stream.detach())
        )
        return asked.run(ids, grad=grad).logits[:, length - 1 :]
