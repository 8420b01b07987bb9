"""Steering: ways of moving activations so that a model says one thing rather than another. Each is an `Edit`.

    pc.steer(site, 2 * joy)             a vector at every token
    act_add(model, site, a, b)          the difference of two prompts, token on token         ActAdd, Turner et al. 2023
    onward(site, 2 * joy)               a vector from the end of the prompt on                CAA, Rimsky et al. 2023
    renormed(site, 2 * joy)             a vector, and the old length again
    turned(site, plane, degrees)        to an angle in a plane, length kept                   Angular Steering, Vu & Nguyen 2025
    capped(site, joy.vector, high=3)    what lies along a direction is held in a range
    pc.project(site, joy.vector)        nothing is left along it

Selected heads are shifted in `iti.py`, whole models rid of a direction in `ablation.py`, prompts chosen in `conditional.py`.
All hold while generating: positions count a prompt's own tokens, whether they come at once, padded, or one by one.

What none of them knows: what else lies along the direction. `dose.py` measures what is said and what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.axes import Part
from patchclamp.core.edit import Edit, Here
from patchclamp.core.errors import ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.core.site import Site
from patchclamp.model.model import Model


def act_add(model: Model, site: str | Site, towards: str, away: str, dose: float = 1.0, *, start: int = 0,
            pad: str | int = " ") -> Edit:  # fmt: skip
    """What one prompt holds at a site minus what another does, added token on token from the prompt's token `start` on.

    The shorter of the two is filled up with `pad`, a token that says little. The first token is the same in both where a
    model begins every text with one, so nothing is added there. A prompt that is shorter still gets the rest while it is
    being continued.

    >>> from patchclamp.probe.steering import act_add
    >>> cheer = act_add(model, "blocks.0.out", "The film was lovely.", "The film was dull.", dose=2)
    >>> sad = "The soup was hopeless. We went home"
    >>> model.generate(sad, 2).new, model.edit(cheer).generate(sad, 2).new
    (('bored.',), ('delighted.',))
    """
    ids = [model.inputs(prompt).ids() for prompt in (towards, away)]
    length = max(map(len, ids))
    if len(ids[0]) != len(ids[1]):
        fill = model.token(pad)
        ids = [row + [fill] * (length - len(row)) for row in ids]
    value = model.run(torch.tensor(ids, device=model.device), keep=_whole(site), logits=False)[site]
    return Edit(Site.parse(site), _act_add, "act_add", {"vector": dose * (value[0] - value[1]), "start": start})


def onward(site: str | Site, vector: Tensor, start: int | Sequence[int] | None = None) -> Edit:
    """A vector added at the prompt's last token, where the first word of the answer is made, and at every token to come.

    So contrastive activation addition leaves the prompt itself alone. In a plain run the last token is the last there is; with
    `start` the vector is added from that token on, counted in each prompt (one number for all, or one for each), which also
    holds where a whole dialogue is read at once or nothing is cached.

    >>> from patchclamp.probe.steering import onward
    >>> joy = pc.contrast(model, "blocks.1.out", ["The film was lovely. We went home"], ["The film was dull. We went home"])
    >>> sad = ["The soup was hopeless. We went home", "The play was dull. I left the"]
    >>> model.edit(onward("blocks.1.out", 1 * joy)).generate(sad, 2).new
    ('pleased.', 'theatre cheerful')
    """
    starts = start if start is None else (start,) if isinstance(start, int) else tuple(int(s) for s in start)
    if starts is not None and min(starts, default=-1) < 0:
        raise WrongPrompt(f"tokens are counted from the prompt's first, 0; {min(starts, default=None)} is none of them.")
    return Edit(_whole(site), _onward, "onward", {"vector": vector, "start": starts})


def renormed(site: str | Site, vector: Tensor) -> Edit:
    """A vector is added and each activation brought back to the length it had: the direction turns, the size does not.

    >>> from patchclamp.probe.steering import renormed
    >>> run = model.edit(renormed("blocks.1.out", 10 * torch.ones(128))).run(clean, keep="blocks.1.out")
    >>> before = model.run(clean, keep="blocks.1.out")
    >>> torch.allclose(run["blocks.1.out"].norm(dim=-1), before["blocks.1.out"].norm(dim=-1), rtol=1e-4)
    True
    """
    return Edit(Site.parse(site), _renormed, "renormed", {"vector": vector})


def turned(site: str | Site, plane: Float[Tensor, "2 d"], degrees: float, *, forward: bool = False) -> Edit:
    """Each activation is turned inside a plane until it stands at an angle there; what lies outside the plane stays.

    The angle counts from the plane's first direction to its second (made orthogonal to it): 0 is along the first, 180
    against it, 90 takes the first away without a loss of length. With `forward` only activations that point along the
    first direction are turned (the paper's adaptive form).

    >>> from patchclamp.probe.steering import turned
    >>> plane = torch.eye(128)[:2]
    >>> there = model.edit(turned("blocks.1.out", plane, 90)).run(clean, keep="blocks.1.out")["blocks.1.out"]
    >>> bool(there[..., 0].abs().max() < 1e-4 and (there[..., 1] > 0).all())
    True
    """
    rows = torch.as_tensor(plane).float()
    if rows.shape[:1] != (2,) or rows.ndim != 2:
        raise ShapeMismatch(f"a plane is two directions (2, d); got {list(rows.shape)}.")
    first = rows[0] / rows[0].norm().clamp(min=1e-30)
    second = rows[1] - (rows[1] @ first) * first
    if float(second.norm()) < 1e-6 * float(rows[1].norm().clamp(min=1e-30)):
        raise ShapeMismatch("the two directions of the plane are one and the same line; give a second one.")
    basis = torch.stack([first, second / second.norm()])
    return Edit(Site.parse(site), _turned, "turned", {"plane": basis, "degrees": float(degrees), "forward": forward})


def capped(site: str | Site, direction: Float[Tensor, " d"], low: float = -math.inf, high: float = math.inf) -> Edit:
    """What lies along a direction is held between `low` and `high`; an activation inside the range is left as it is.

    >>> from patchclamp.probe.steering import capped
    >>> joy = pc.contrast(model, "blocks.2.out", ["The film was lovely."] * 2, ["The film was dull."] * 2)
    >>> sober = model.edit(capped("blocks.2.out", joy.vector, high=float(joy.middle)))
    >>> held = sober.run("The film was lovely.", keep="blocks.2.out")["blocks.2.out"] @ joy
    >>> bool((held <= joy.middle + 1e-3).all())
    True
    """
    if not low <= high:
        raise ShapeMismatch(f"a range goes from low to high; there is nothing between {low:g} and {high:g}.")
    return Edit(Site.parse(site), _capped, "capped", {"direction": direction, "low": low, "high": high})


def own_positions(value: Part, here: Here) -> Int[Tensor, "row pos"]:
    """For each row and column of a value the position of that token in its own prompt; padding is negative."""
    window = here.windows["pos"]
    first = window.first or (0,)
    begins = torch.tensor([first[row % len(first)] for row in range(value.shape[0])], device=value.device)
    return torch.arange(window.start, window.start + value.shape[1], device=value.device)[None] - begins[:, None]


def ends(value: Part, here: Here) -> Int[Tensor, "row 1"]:
    """For each row the column of the newest token."""
    window = here.windows["pos"]
    known = window.end or (window.start + value.shape[1],)
    found = [known[row % len(known)] - 1 - window.start for row in range(value.shape[0])]
    return torch.tensor(found, device=value.device)[:, None]


def _act_add(value: Part, here: Here, vector: Tensor, start: int) -> Part:
    at = own_positions(value, here) - start
    inside = (at >= 0) & (at < len(vector))
    added = vector.to(value)[at.clamp(0, len(vector) - 1)]
    return torch.where(_wide(inside, value), value + _fits(added, value, here, "act_add"), value)


def _onward(value: Part, here: Here, vector: Tensor, start: tuple[int, ...] | None) -> Part:
    rows, added = value.shape[0], _fits(vector.to(value), value, here, "onward")
    if start is None:
        if here.windows["pos"].start:
            return value + added  # tokens after the prompt
        since = ends(value, here) == torch.arange(value.shape[1], device=value.device)
    elif rows % len(start):
        raise WrongPrompt(f"onward at {here.site} has starts for {len(start)} prompts; there are {rows}.")
    else:
        starts = torch.tensor([start[row % len(start)] for row in range(rows)], device=value.device)
        since = own_positions(value, here) >= starts[:, None]
    return torch.where(_wide(since, value), value + added, value)


def _renormed(value: Part, here: Here, vector: Tensor) -> Part:
    wide = value.float()
    moved = wide + _fits(vector.to(wide), value, here, "renormed")
    return (moved * (wide.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True).clamp(min=1e-30))).to(value.dtype)


def _turned(value: Part, here: Here, plane: Tensor, degrees: float, forward: bool) -> Part:
    basis, wide = plane.to(value.device), value.float()
    _fits(basis[0], value, here, "turned")
    inside = wide @ basis.T
    angle = math.radians(degrees)
    aim = math.cos(angle) * basis[0] + math.sin(angle) * basis[1]
    made = wide - inside @ basis + inside.norm(dim=-1, keepdim=True) * aim
    return (torch.where(inside[..., :1] > 0, made, wide) if forward else made).to(value.dtype)


def _capped(value: Part, here: Here, direction: Tensor, low: float, high: float) -> Part:
    wide = value.float()
    unit = _fits(direction.to(wide), value, here, "capped")
    unit = unit / unit.norm().clamp(min=1e-30)
    along = wide @ unit
    beyond = along.clamp(low, high) - along
    return torch.where((beyond != 0)[..., None], wide + beyond[..., None] * unit, wide).to(value.dtype)


def _wide(mask: Tensor, value: Part) -> Tensor:
    """A mask of rows and columns, as wide as a value."""
    return mask.reshape(*mask.shape, *[1] * (value.ndim - 2))


def _fits(given: Tensor, value: Part, here: Here, what: str) -> Tensor:
    if given.shape[-1] != value.shape[-1]:
        raise ShapeMismatch(
            f"{what} at {here.site} takes vectors of {value.shape[-1]} numbers; got {list(given.shape)}. "
            "Was it computed on another model or another kind of place?"
        )
    return given


def _whole(site: str | Site) -> Site:
    """A site whose tokens are all there; the edit itself says which of them it means."""
    site = Site.parse(site)
    if "pos" in dict(site.index):
        raise WrongAxis(f"{site}: which tokens are meant is said by this edit itself; leave pos out.")
    return site
