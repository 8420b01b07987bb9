"""The future lens: how much of the next few tokens is already in one hidden state.

Pal et al. 2023, "Future Lens". Two ways are theirs. A linear map, fitted for each layer and distance, carries the stream at
token t to the final stream at token t + n, which the model's end reads: n = 0 is its next token, n = 1 the one after. And a
learned prompt (`soft.py`). They measured on GPT-J 6B; here any causal model is, against what the token alone would say: the
answer that the model most often gives n tokens after this one (`bigram`). A hidden state that knows nothing but its own token
does no better.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.axes import Numbers
from patchclamp.core.errors import UnknownSite, Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.lenses import affine
from patchclamp.lenses.affine import Affine
from patchclamp.lenses.translator import Translator
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model, Sites
from patchclamp.model.unembed import End

BATCH = 32
"""Texts read together."""
SIDE, RATE = 16, 0.03
"""Rows of a step of training, as a square; Adam's first step, in units of the weights, falling to zero."""


@dataclass(frozen=True, eq=False)
class FutureLens:
    """An affine map for each place and distance, and what the token alone would say.

    >>> from patchclamp.lenses.future import FutureLens
    >>> lens = FutureLens.fit(model, [clean, corrupt], ahead=2, sites="blocks.1:3.out", steps=2)
    >>> lens.read(model, clean).shape
    {'ahead': 2, 'layer': 2, 'pos': 15}
    """

    maps: Mapping[str, Affine]
    """By place and distance: `blocks.2.out+1`."""
    bigram: Mapping[int, Mapping[int, int]]
    """By distance, of every token seen: the model's most frequent answer so many tokens later."""
    paths: tuple[str, ...]
    ahead: int
    model: str = ""

    @classmethod
    def fit(
        cls, model: Model, texts: Iterable, ahead: int = 4, sites: Sites = "blocks.*.out", steps: int = 500, seed: int = 0
    ) -> FutureLens:
        """For the distances 0 to `ahead` - 1, from all tokens of some texts: least squares, and then that many steps of Adam.

        Least squares alone spends itself on directions that the end hardly reads (on the town it stays below the bigram);
        what is then trained is the divergence of the reading from what the model said there.
        """
        paths, last = _places(model, sites)
        rows = Rows.of(model, texts, paths, last, ahead)
        maps = rows.maps()
        if steps:
            maps = trained(model, rows, maps, steps, seed)
        named = {f"{path}+{n}": maps[i * ahead + n] for i, path in enumerate(paths) for n in range(ahead)}
        return cls(named, rows.bigram(), tuple(paths), ahead, model.name)

    def at(self, n: int) -> Translator:
        """The translator that reads n tokens further on: `pc.lens(model, prompt, through=lens.at(2))`.

        A lens holds its readings against the output at the same token; only for n = 0 is that what they are about. See `read`.
        """

        def carried(path: str, stream: Tensor, /) -> Tensor:
            if f"{path}+{n}" not in self.maps:
                raise UnknownSite(
                    f"this lens has no map for {path} at {n}; it has {', '.join(self.paths)} at 0 to {self.ahead - 1}."
                )
            return self.maps[f"{path}+{n}"](stream)

        return carried

    def read(self, model: Model, prompt: Prompt) -> Grid:
        """The token that each place expects so many tokens later, and its probability: Grid(ahead, layer, pos).

        Row `pos` is the token that the stream belongs to. `Grid.details["p(output)"]` is the probability of what the model
        itself puts first there, where the prompt goes on so far.
        """
        inputs = model.inputs(prompt)
        if inputs.batch > 1:
            raise WrongPrompt(f"a future lens shows one prompt at a time; got {inputs.batch}.")
        end = End.of(model, inputs, self.paths)
        answers, words = end.run.logits[0].argmax(-1), model.run_reader.vocabulary(end.run.logits.shape[-1])
        values, tokens, given = [], [], []
        for n in range(self.ahead):
            for path in self.paths:
                said = end(self.at(n)(path, end.run.kept[path].value)[None])[0, 0].float().softmax(-1)
                top, later = said.max(-1), torch.full_like(said[:, 0], torch.nan)
                later[: len(later) - n] = said[: len(later) - n].gather(-1, answers[n:, None])[:, 0]
                values.append(top.values)
                tokens.append(top.indices)
                given.append(later)
        shape = (self.ahead, len(self.paths), -1)
        text = [[[words[t] for t in row] for row in layer] for layer in torch.stack(tokens).reshape(shape).tolist()]
        labels: dict[str, Sequence[str]] = {"ahead": [f"+{n + 1}" for n in range(self.ahead)], "layer": _layers(self.paths)}
        labels |= {"pos": end.run.words[0]} if end.run.words[0] else {}
        return Grid(torch.stack(values).reshape(shape).cpu(), ("ahead", "layer", "pos"), labels, unit="probability", text=text,
                    title="Future lens", scale="sequential",
                    details={"p(output)": torch.stack(given).reshape(shape).cpu()})  # fmt: skip

    def accuracy(self, model: Model, texts: Iterable) -> Grid:
        """How often the lens's top token is the model's own, on other texts: Grid(ahead, reader), and the bigram's."""
        right = torch.zeros(self.ahead, len(self.paths) + 1)
        count = torch.zeros(self.ahead)
        for batch in _batches(texts, "future lens"):
            end = End.of(model, model.inputs(batch), self.paths)
            answers, tokens = end.run.logits.argmax(-1), end.run.tokens
            windows = [list(end.run.windows[""].tokens(r)) for r in range(len(batch))]
            for n in range(self.ahead):
                truth = torch.cat([answers[r, c[n:]] for r, c in enumerate(windows)])
                count[n] += len(truth)
                for i, path in enumerate(self.paths):
                    said = end(self.at(n)(path, end.run.kept[path].value)[None])[0].argmax(-1)
                    mine = torch.cat([said[r, c[: len(c) - n]] for r, c in enumerate(windows)])
                    right[n, i] += float((mine == truth).sum())
                alone = [self.bigram[n].get(t, -1) for r, c in enumerate(windows) for t in tokens[r, c[: len(c) - n]].tolist()]
                right[n, -1] += float((torch.tensor(alone) == truth.cpu()).sum())
        labels = {"ahead": [f"+{n + 1}" for n in range(self.ahead)], "reader": [*_layers(self.paths), "bigram"]}
        return Grid(right / count[:, None], ("ahead", "reader"), labels, unit="fraction", scale="sequential",
                    title="How often the future lens says what the model will", note=f"{int(count[0])} tokens.")  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Write to a folder."""
        about = {"paths": self.paths, "ahead": self.ahead, "model": self.model, "bigram": self.bigram}
        return affine.write(folder, "FutureLens", self.maps, about)

    @classmethod
    def load(cls, folder: str | Path) -> FutureLens:
        """Read what `save` wrote."""
        maps, card = affine.read(folder, "FutureLens")
        bigram = {int(n): {int(t): a for t, a in said.items()} for n, said in card["bigram"].items()}
        return cls(maps, bigram, tuple(card["paths"]), card["ahead"], card["model"])


@dataclass(frozen=True, eq=False)
class Rows:
    """All tokens of some texts, in memory: the streams at each place, the final stream, what the model says, the token."""

    streams: Float[Tensor, "place row d_model"]
    final: Numbers
    answers: Int[Tensor, " row"]
    tokens: Int[Tensor, " row"]
    ahead: int
    starts: Int[Tensor, "ahead row"]
    """By distance, the rows whose text goes on so far; filled up with -1."""

    @classmethod
    def of(cls, model: Model, texts: Iterable, paths: Sequence[str], last: str, ahead: int) -> Rows:
        """From a text stream."""
        streams, final, answers, tokens, left = [], [], [], [], []
        for batch in _batches(texts, "texts"):
            run = model.run(batch, list(dict.fromkeys([*paths, last])))
            for r in range(len(batch)):
                columns = list(run.windows[""].tokens(r))
                streams.append(torch.stack([run.kept[p].value[r, columns] for p in paths]).float().cpu())
                final.append(run.kept[last].value[r, columns].float().cpu())
                answers.append(run.logits[r, columns].argmax(-1).cpu())
                tokens.append(run.tokens[r, columns].cpu())
                left.append(torch.arange(len(columns), 0, -1) - 1)
        after, whole = torch.cat(left), torch.arange(sum(map(len, left)))
        starts = torch.stack([torch.where(after >= n, whole, -1) for n in range(ahead)])
        return cls(torch.cat(streams, 1), torch.cat(final), torch.cat(answers), torch.cat(tokens), ahead, starts)

    def after(self, n: int) -> Int[Tensor, " start"]:
        """The rows whose text goes on for n tokens."""
        return self.starts[n][self.starts[n] >= 0]

    def maps(self) -> list[Affine]:
        """Least squares, place by place and within it distance by distance."""
        return [
            Affine.fit(stream[self.after(n)], self.final[self.after(n) + n])
            for stream in self.streams
            for n in range(self.ahead)
        ]

    def bigram(self) -> dict[int, dict[int, int]]:
        """By distance, of every token: the answer that comes most often so many tokens later."""
        seen: dict[int, dict[int, Counter]] = {n: defaultdict(Counter) for n in range(self.ahead)}
        for n, counts in seen.items():
            rows = self.after(n)
            for token, answer in zip(self.tokens[rows].tolist(), self.answers[rows + n].tolist()):
                counts[token][answer] += 1
        return {n: {t: c.most_common(1)[0][0] for t, c in counts.items()} for n, counts in seen.items()}


def trained(model: Model, rows: Rows, maps: Sequence[Affine], steps: int, seed: int) -> list[Affine]:
    """Maps that read out, through the model's own end, more nearly what the model said so many tokens later."""
    end = _anywhere(model)
    weight = torch.stack([m.weight for m in maps]).to(model.device)
    bias = torch.stack([m.bias for m in maps]).to(model.device)
    rate = RATE * float(weight.detach().std())
    optimizer = torch.optim.Adam([weight, bias], lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for step in progress(range(steps), label="future lens"):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
        for m in range(len(maps)):
            place, n = divmod(m, rows.ahead)
            if not n and torch.equal(rows.streams[place], rows.final):
                continue  # the output itself, which least squares has already
            starts = rows.after(n)
            some = starts[torch.randint(len(starts), (SIDE * SIDE,), generator=generator)]
            x, y = rows.streams[place, some].to(weight), rows.final[some + n].to(weight)
            truth = _read(end, y).log_softmax(-1)
            own = weight[m].detach().requires_grad_(), bias[m].detach().requires_grad_()
            said = _read(end, x @ own[0] + own[1]).log_softmax(-1)
            loss = (truth.exp() * (truth - said)).sum(-1).mean()
            weight.grad[m], bias.grad[m] = torch.autograd.grad(loss, own)  # the model's own parameters are left alone
        optimizer.step()
    return [Affine(w.detach().cpu(), b.detach().cpu()) for w, b in zip(weight, bias)]


def _anywhere(model: Model) -> End:
    """The model's end for any streams, `SIDE` prompts of as many tokens: which ones does not matter behind the blocks."""
    return End.of(model, model.inputs(torch.zeros(SIDE, SIDE, dtype=torch.long)))


def _read(end: End, streams: Numbers) -> Float[Tensor, "row vocab"]:
    return end(streams.to(end.model.dtype).reshape(1, SIDE, SIDE, -1)).float().flatten(0, -2)


def _places(model: Model, sites: Sites) -> tuple[list[str], str]:
    """The places to read from, and the final stream."""
    main = model.anatomy.main
    if not main.causal:
        raise Unserved(f"{model.name} sees later tokens, so it has no future to be asked about.")
    wanted = [sites] if isinstance(sites, (str, Site)) else sites
    return [p for s in wanted for p in model.places(s)], f"{main.blocks[-1].path}.out"


def _batches(texts: Iterable, label: str) -> Iterator[list]:
    """Some texts at a time, in their order."""
    texts = list(texts)
    if not texts:
        raise WrongPrompt("a future lens is fitted and judged on texts, and there are none.")
    yield from progress([texts[n : n + BATCH] for n in range(0, len(texts), BATCH)], label=label)


def _layers(paths: Sequence[str]) -> list[str]:
    return [p.removeprefix("blocks.").removesuffix(".out") for p in paths]
