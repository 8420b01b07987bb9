"""Readings: one plain sentence for each picture, made from its numbers and saying no more than they do."""

from __future__ import annotations

from collections.abc import Sequence

from patchclamp.core.grid import Grid
from patchclamp.picture.words import visible

ENOUGH = 0.3
"""The share of the gap between two runs from which a cell of a patching map is said to matter."""


def quoted(word: str) -> str:
    """A token between quotation marks, its white space made visible where it is all there is."""
    return f"“{word.strip()}”" if word.strip() else f"“{visible(word)}”"


def signed(value: float, form: str = "+.2f") -> str:
    """A number with its sign, a true minus where it is negative."""
    return f"{value:{form}}".replace("-", "−")


def prediction(grid: Grid, place: str = "next") -> str:
    """What the model says, and how sure it is."""
    (first, p), (second, q), *_ = grid.top(3)
    said = {
        "next": "It continues with",
        "masked": "In the masked place it puts",
        "first": "Its answer begins with",
        "last": "No token is masked; in its last place it puts",
    }[place]
    return f"{said} {quoted(first['vocab'])}, with probability {p:.3f}; {quoted(second['vocab'])} comes second ({q:.3f})."


def lens(grid: Grid, column: int) -> str:
    """From which block on the stream at the answer's place reads as the answer."""
    words = [row[column] for row in grid.text or ()]
    layers = list(grid.words("layer"))
    answer, probabilities = words[-1], grid.values[:, column].tolist()
    since = next(i for i in range(len(words)) if all(w == answer for w in words[i:]))
    if since == 0:
        return f"Read out after any block, the stream at the answer's place already says {quoted(answer)}."
    before = quoted(words[since - 1])
    sure = next((layers[i] for i in range(since, len(words)) if probabilities[i] > 0.5), None)
    tail = f", with more than one half from block {sure}" if sure is not None and sure != layers[since] else ""
    return (
        f"At the answer's place the stream reads as {quoted(answer)} from block {layers[since]} on{tail}; "
        f"one block earlier it reads as {before}."
    )


def parts(grid: Grid, name: str) -> str:
    """Which parts write the most into the answer, and that they add up."""
    total = grid.baseline["metric"]
    top = grid.top(3, "magnitude")
    said = ", ".join(f"{_component(w['component'])} {signed(v)}" for w, v in top)
    gap = abs(float(grid.values.sum()) - total)
    return f"{name} is {signed(total, '.3f')}; {said} write the most of it. All parts add up to it within {_power(gap)}."


def heads(grid: Grid, what: str) -> str:
    """The strongest cells of a layer x head grid."""
    top = grid.top(3, "magnitude")
    said = ", ".join(f"head {w['layer']}.{w['head']} ({signed(v)})" for w, v in top)
    return f"The heads that {what} most are {said}."


def sources(grid: Grid) -> str:
    """From which tokens attention brings the answer."""
    top = [(w, v) for w, v in Grid(grid.values.sum(0), ("key",), {"key": grid.words("key")}).top(2, "magnitude")]
    said = " and ".join(f"{_token(w['key'])} ({signed(v)})" for w, v in top)
    return f"What attention brings to the answer's place comes mostly from {said}."


def attention(looks: Sequence[tuple[str, str, float]]) -> str:
    """What heads look at most from the answer's place: (head, token, weight)."""
    said = "; ".join(f"head {name} looks at {_token(token)}, weight {weight:.2f}" for name, token, weight in looks)
    return f"At the answer's place {said}."


def story(grid: Grid) -> str:
    """Where the answer sits, block by block, in a layer x position map of restored shares."""
    rows = grid.values
    layers, tokens = list(grid.words("layer")), list(grid.words("pos"))
    runs: list[tuple[int, int, int]] = []
    for layer in range(rows.shape[0]):
        value, at = rows[layer].nan_to_num(-1).max(0)
        if float(value) < ENOUGH:
            continue
        if runs and runs[-1][2] == int(at) and runs[-1][1] == layer - 1:
            runs[-1] = (runs[-1][0], layer, int(at))
        else:
            runs.append((layer, layer, int(at)))
    if not runs:
        return f"No single place restores {ENOUGH:.0%} of the answer: what differs is spread over several."
    said = [
        f"in {_blocks(layers, first, last)} it sits at {_token(tokens[at])} "
        f"(up to {float(rows[first : last + 1, at].max()):.0%} restored)"
        for first, last, at in runs[:4]
    ]
    return (
        "What makes the difference moves as the blocks go by: " + ", then ".join(said) + "."
        if len(said) > 1
        else ("What makes the difference stays in one place: " + said[0] + ".")
    )


def strongest(grid: Grid, what: str) -> str:
    """The strongest cells of any map of restored shares."""
    top = [(w, v) for w, v in grid.top(3, "magnitude") if abs(v) >= 0.05]
    if not top:
        return f"Putting in {what} one by one restores less than 5 % anywhere."
    said = ", ".join(f"{cell(w)} ({signed(v, '+.0%')})" for w, v in top)
    return f"Putting in {what} one by one restores most at {said}."


def cell(where: dict[str, str]) -> str:
    """A cell of a map in words."""
    words = [f"block {where['layer']}"] if "layer" in where else []
    words += [f"{axis.replace('kv_head', 'key-value head')} {w}" for axis, w in where.items() if axis not in ("layer", "pos")]
    return " ".join(words) + (f" at {_token(where['pos'])}" if "pos" in where else "")


def _component(name: str) -> str:
    layer, _, part = name.partition(" ")
    said = {
        "attn": "attention",
        "mlp": "feed-forward layer",
        "mixer": "mixer",
        "cross": "cross-attention",
        "extra": "extra write",
    }
    return f"block {layer}'s {said[part]}" if part in said else f"the {name}"


def _blocks(layers: Sequence[str], first: int, last: int) -> str:
    return f"block {layers[first]}" if first == last else f"blocks {layers[first]} to {layers[last]}"


def _token(label: str) -> str:
    number, _, word = label.partition(" ")
    return f"{quoted(word)} (token {number})" if word else f"token {number}"


def _power(gap: float) -> str:
    return "rounding (0)" if gap == 0 else f"{gap:.0e}"
