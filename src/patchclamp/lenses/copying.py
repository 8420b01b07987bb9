"""What heads bring: whether a head that looks at a token makes that token more likely, and whether it did so on a prompt.

`copying` asks by the vocabulary: what a head would write if it looked at one token only, read out by the unembedding; does the
token itself come out on top? The values are those of a run, so whatever the first layers make of a token counts. `moving` asks
of real prompts whether the answer's token is looked at, and whether that raises it (the name movers of Wang et al. 2022). The
score of Elhage et al. 2021, the eigenvalues of the circuit from embedding to unembedding, asks the weights alone, and is
`matrix.scores.copying`.

Not known here: what later layers make of what a head writes. A head that moves a token into another one's space, for a
later head to compare with, is no copier by these scores, and may copy all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.metric import logit_diff
from patchclamp.lenses.attention import side_by_side, unrepeated
from patchclamp.lenses.direct import direct
from patchclamp.model.anatomy import Write
from patchclamp.model.inputs import Prompt
from patchclamp.model.looks import looking, patterns
from patchclamp.model.model import Model

LARGEST = 1000
"""Tokens that are compared with one another, at most."""


def copying(model: Model, prompts: Prompt | None = None, seed: int = 0) -> Grid:
    """How much a head's writing favours the very token it looks at: Grid(layer, head), from -1 to 1, and 0 by chance.

    The logits that each token's value alone would write are compared among the tokens of the prompts (random ones, unless
    given), each less what it gets on average whatever is looked at. 1: the token looked at always comes first; -1: last. The
    detail `other` is the same for another token of the prompt in its place.

    >>> copying(model).shape
    {'layer': 4, 'head': 8}
    """
    inputs = model.inputs(unrepeated(model, seed=seed) if prompts is None else prompts)
    layers = looking(model)
    run = model.run(inputs, [site.replace(".pattern", ".v") for site in layers.values()], logits=False)
    at = [(r, c) for r in range(inputs.batch) for c in run.windows[""].tokens(r)]
    at = at[:: max(1, len(at) // LARGEST)]
    rows, columns = (torch.tensor(part) for part in zip(*at))
    said = inputs.tokens.cpu()[rows, columns]
    tokens, own = said.unique(return_inverse=True)
    if len(tokens) < 3:
        raise WrongPrompt(f"copying is judged among the tokens of the prompts, and these have {len(tokens)}; give more.")
    read = _unembedding(model)[:, tokens]
    found = [_layer(model, site, run, rows, columns, read, own) for site in layers.values()]
    scores, others = (side_by_side([one[k] for one in found]) for k in (0, 1))
    labels = {"layer": list(map(str, layers))}
    return Grid(scores, ("layer", "head"), labels, unit="score", title="Which heads copy", details={"other": others},
                note="1: what a head looks at is what it makes likelier; -1: less likely. 0 by chance.")  # fmt: skip


def moving(model: Model, prompts: Prompt, answers: Sequence[str | int], wrongs: Sequence[str | int]) -> Grid:
    """How much the place of the answer looks at the answer's token, where that stands in the prompt: Grid(layer, head).

    Details: `beside`, what it gives the wrong answer's token, and `direct`, what the head writes into the logit difference of
    the two. A name mover looks at the one and raises it; one that looks and lowers it is a negative one.

    >>> moving(model, clean, [" Mary"], [" John"]).top(1)[0][1] > 0.4
    True
    """
    inputs, layers = model.inputs(prompts), looking(model)
    tokens = [[model.token(w) for w in words] for words in (answers, wrongs)]
    if any(len(words) != inputs.batch for words in tokens):
        raise WrongPrompt(f"{len(answers)} answers and {len(wrongs)} wrong ones for {inputs.batch} prompts; give one of each.")
    found = patterns(model, inputs)
    end = model.result(inputs, model.forward(inputs), None).last
    each = []
    for r in range(inputs.batch):
        ids = inputs.tokens[r].clone()
        ids[[c for c in range(len(ids)) if c not in inputs.windows[""].tokens(r)]] = -1
        each.append(torch.stack([
            side_by_side([p[r, :, end[r]][:, ids == words[r]].sum(-1) for p in found.values()]) for words in tokens
        ]))  # fmt: skip
    cells = torch.stack(each)
    written = direct(model, inputs, "blocks.*.attn.z[head=*]", logit_diff(tokens[0], tokens[1]))
    details = {"beside": cells[:, 1].mean(0), "direct": written.values.detach()}
    return Grid(cells[:, 0].mean(0), ("layer", "head"), {"layer": list(map(str, layers))}, unit="attention", scale="sequential",
                title="Who looks at the answer", details=details, each=cells[:, 0],
                note="beside: at the wrong answer; direct: what is written into their difference, in logits.")  # fmt: skip


def _layer(model: Model, site: str, run, rows: Tensor, columns: Tensor, read: Float[Tensor, "d_model token"],
           own: Int[Tensor, " place"]) -> tuple[Float[Tensor, " head"], Float[Tensor, " head"]]:  # fmt: skip
    """The scores of one layer's heads, for the token itself and for another in its place."""
    write, outer = _write(model, site), site.removesuffix(".pattern")
    values = run[f"{outer}.v"].float()[rows, columns]
    to_stream = _finished(model, write, model.weights[f"{outer}.W_O"].float())
    group, scores = write.heads // write.kv_heads, []
    for head in range(write.heads):
        logits = (values[:, head // group] @ to_stream[head]) @ read
        logits = logits - logits.mean(0)
        scores.append([_standing(logits, own), _standing(logits, own.roll(1))])
    return torch.tensor(scores)[:, 0], torch.tensor(scores)[:, 1]


def _standing(logits: Float[Tensor, "place token"], own: Int[Tensor, " place"]) -> float:
    """Where one's own token stands among all, from -1 (last) to 1 (first); equals share their places."""
    mine = logits.gather(1, own[:, None])
    below, above = (logits < mine).sum(1), (logits > mine).sum(1)
    return float(((below - above) / (logits.shape[1] - 1)).mean())


def _finished(model: Model, write: Write, out: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "head d_head d_model"]:
    """The output matrix with the constant factors and the weights of the norms behind it; their scale changes no order."""
    for factor in write.factors:
        out = out * factor
    for path in write.norms:
        norm = model.weights.norm(path)
        out = norm.weight.to(out.dtype) * norm.centred(out)
    return out


def _unembedding(model: Model) -> Float[Tensor, "d_model vocab"]:
    """What reads tokens off the stream, the final norm folded in."""
    if "logits.W_U" not in model.weights:
        raise Unserved(f"{model.name} names no unembedding, so what its heads write cannot be read as tokens.")
    read = model.weights.folded()["logits.W_U"].float()
    norm = model.anatomy.main.norm
    return model.weights.norm(norm).centred(read.T).T if norm else read


def _write(model: Model, site: str) -> Write:
    block = next(b for b in model.anatomy.main.blocks if site.startswith(b.path + "."))
    found = block.write("attn")
    assert found is not None
    return found
