"""ACDC: find a circuit by cutting, edge by edge, whatever does not change the answer.

From the logits down, each edge is cut in turn; it stays cut if the metric moves by less than a threshold, and comes back
otherwise (Conmy et al. 2023). What a cut edge carries is what it carries in the corrupt run. The order matters, and an edge
whose work another edge can take over is lost: the result is one circuit, not the only one.

The decisions are those of the plain loop; the work is not. Nothing has been cut below the block in hand, so passes begin
there; and since most edges go, a batch of passes tries "cut the next one", "cut the next two", ... at once, up to the first
that has to stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from patchclamp.circuit.edges import Question, graph_of, kept
from patchclamp.core.axes import Logits, PerPrompt
from patchclamp.core.graph import Graph
from patchclamp.core.journal import leaf
from patchclamp.core.metric import Metric, called, kl
from patchclamp.core.progress import progress
from patchclamp.model.inputs import Prompt, tiled
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model
from patchclamp.model.wires import Settled

ROWS = 4096
"""How many tokens a batch of tries may hold."""


def acdc(model: Model, clean: Prompt, corrupt: Prompt, threshold: float,
         metric: Metric | Callable[[Logits], PerPrompt] | None = None) -> Graph:  # fmt: skip
    """The circuit that is left when every edge is cut whose cutting moves the metric by less than `threshold`.

    Without a metric: the KL divergence from the uncut model, in nats, as in the paper. With one, its fall from the clean
    run's value. Edges that stay have as weight how far the metric would move without them.

    >>> from patchclamp.circuit.acdc import acdc
    >>> circuit = acdc(model, clean, corrupt, 0.5)
    >>> 0 < len(circuit.edges) < 1519
    True
    """
    if threshold <= 0:
        raise ValueError(f"threshold is how far the metric may move, above zero; got {threshold}.")
    run = model.run(clean)
    measured = kl(run) if metric is None else metric
    q = Question.of(model, clean, corrupt, measured)
    search = _Search(q, threshold, 1.0 if metric is None else -1.0)
    page = leaf("cutting", lambda: (fingerprint(model), q.clean.tokens, q.corrupt.tokens, *q.ends, threshold))
    for row in progress(reversed(range(len(q.wires.receivers))), total=len(q.wires.receivers), label="cutting"):
        if row in page.known:
            search.resume(row, page.known[row])
        else:
            search.receiver(row)
            page.write(row, search.decided(row))
    name, unit = called(measured)
    facts = {"model": model.name, "method": "ACDC", "metric": name, "threshold": f"{threshold:g}"}
    whole = graph_of(q.wires, search.moved, unit, f"ACDC at {threshold:g}", facts)
    stays = kept(q.wires, []) - search.cut
    return whole.only(e for e, stay in zip(whole.edges, stays[q.wires.joined].tolist()) if stay)


@dataclass(eq=False)
class _Search:
    q: Question
    threshold: float
    sign: float
    """Which way the metric moves when things get worse."""

    def __post_init__(self) -> None:
        wires = self.q.wires
        self.cut = torch.zeros(len(wires.receivers), len(wires.senders))
        self.moved = torch.zeros_like(self.cut)
        self.settled: Settled | None = wires.settled(self.q.clean, self.q.ours)
        self.value = float(self.q.ends[0].mean())
        self.room = max(ROWS // max(self.q.clean.tokens.numel(), 1), 1)

    def receiver(self, row: int) -> None:
        """Decide about every edge into one receiver, the latest sender first."""
        todo = self.q.wires.joined[row].nonzero()[:, 0].tolist()[::-1]
        width = min(4, self.room)
        while todo:
            tries = todo[:width]
            values = self._tried(row, tries)
            for n, value in enumerate(values):
                moved = self.sign * (value - self.value)
                self.moved[row, tries[n]] = moved
                if moved >= self.threshold:
                    break
                self.cut[row, tries[n]] = 1
                self.value = value
            else:
                n = len(tries)
            refused = n < len(tries)
            todo = todo[n + refused :]
            width = max(n, 1) if refused else min(2 * width, self.room)

    def decided(self, row: int) -> Tensor:
        """What was decided about a receiver, and the metric since: for keeping."""
        return torch.cat([self.cut[row].double(), self.moved[row].double(), torch.tensor([self.value], dtype=torch.float64)])

    def resume(self, row: int, decided: Tensor) -> None:
        """Take over what was decided before."""
        n = self.cut.shape[1]
        self.cut[row], self.moved[row], self.value = decided[:n].float(), decided[n:-1].float(), float(decided[-1])

    def _tried(self, row: int, senders: list[int]) -> list[float]:
        """The metric with the first, the first two, ... of these edges cut besides those that are cut already."""
        q, n, batch = self.q, len(senders), self.q.clean.batch
        cuts = self.cut[:, :, None].repeat(1, 1, n)
        for i, sender in enumerate(senders):
            cuts[row, sender, i:] = 1
        logits = q.wires.run(tiled(q.clean, n), q.theirs.repeat(1, n, 1, 1), cuts.repeat_interleave(batch, 2)[..., None],
                             settled=self.settled)  # fmt: skip
        return [float(q.read(part).mean()) for part in logits.unflatten(0, (n, batch))]


def naive(q: Question, threshold: float, sign: float = 1.0) -> Tensor:
    """The plain loop, one whole pass for every edge: the cut that `acdc` must come to, for tests and benchmarks."""
    cut = torch.zeros(len(q.wires.receivers), len(q.wires.senders))
    value = float(q.ends[0].mean())
    for row in reversed(range(len(q.wires.receivers))):
        for sender in q.wires.joined[row].nonzero()[:, 0].tolist()[::-1]:
            trial = cut.clone()
            trial[row, sender] = 1
            new = float(q.cut(trial).mean())
            if sign * (new - value) < threshold:
                cut, value = trial, new
    return cut
