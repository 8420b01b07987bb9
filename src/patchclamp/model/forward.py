"""Forward: one call of a model, with what it changes, what it keeps and where it stops.

Every site becomes a task at a place. As the raw tensor goes by, it is read in the site's axes, handed to the edits in
order, kept if it is to be kept, and written back. A place that was to be changed or kept and never came by is an error,
not a silence.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from patchclamp.core.edit import Edit, Here
from patchclamp.core.errors import NeverFired
from patchclamp.core.run import Kept
from patchclamp.core.site import Site, Span
from patchclamp.core.window import Window, select
from patchclamp.model.anatomy import Anatomy
from patchclamp.model.attention import doorway
from patchclamp.model.doors import Doors
from patchclamp.model.experts import contributions
from patchclamp.model.ops import Operations, Overlay, Scope
from patchclamp.model.place import Place
from patchclamp.model.tap import Taps, tapped
from patchclamp.model.watch import Slot, outputs, slots


class _Enough(Exception):
    """Raised inside the model when nothing later is asked for."""


@dataclass(eq=False)
class Task:
    """What is to happen at one place."""

    place: Place
    site: Site
    edits: list[Edit] = field(default_factory=list)
    keeps: list[Site] = field(default_factory=list)
    scratch: bool = False
    """Its value is read elsewhere in the same pass (a transcoder encodes it)."""
    fired: bool = False


@dataclass(eq=False)
class Forward:
    """A call being prepared: `want` says what, `run` does it, `kept` holds what was kept."""

    module: nn.Module
    anatomy: Callable[[], Anatomy]
    """Asked only once there is a task, so that a bare run costs nothing."""
    windows: Mapping[str, Window]
    """Which tokens the pass covers, by stream: `""` for the main one, `"encoder."`, ..."""
    batch: int
    grad: bool = False
    stop: bool = False
    """Stop once everything to be kept has gone by."""
    begin: Callable[[tuple, dict], Mapping[str, Window]] | None = None
    """Told the arguments of every forward pass (generation makes many), answers with the windows it covers."""
    late: bool = False
    """Positions outside the windows are no mistake: they went before, or are still to come."""
    strict: bool = True
    """A place that never comes by is an error; not so where blocks are skipped on purpose."""
    rows: tuple[int, ...] | None = None
    overlay: Mapping[tuple[int, bool], Tensor] = field(default_factory=dict)
    """Edited weights, by the parameter they stand for and whether it is read as an embedding."""
    taps: Taps = field(default_factory=Taps)
    tasks: dict[str, Task] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    scratch: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    left: int = 0

    def edit(self, path: str, edit: Edit) -> None:
        """An edit at a concrete site, after those already there."""
        self._task(path).edits.append(edit)
        if edit.kind == "splice" and edit.params["reads"] is not None:
            self._task(reads(path, edit)).scratch = True

    def keep(self, path: str, site: Site) -> None:
        """Keep the value at a concrete site, cut to the index of `site`."""
        self._task(path).keeps.append(site)

    def run(self, call: Callable[[], Any]) -> Any:
        """`call()` with the taps in place; None where the pass was stopped because nothing more was wanted."""
        self.left = sum(bool(t.keeps) for t in self.tasks.values())
        with contextlib.ExitStack() as stack:
            if self.tasks or self.overlay or self.begin is not None:
                self._prepare(stack)
            stack.enter_context(tapped(self.module, self.taps))
            try:
                result = call()
            except _Enough:
                return None
        silent = [p for p, t in self.tasks.items() if not t.fired]
        if silent and self.strict:
            more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
            raise NeverFired(f"this pass never came by {', '.join(silent[:3])}{more}; nothing was changed or kept there.")
        return result

    def _task(self, path: str) -> Task:
        if path not in self.tasks:
            place = self.anatomy().places.get(path) or _raw(path) or self._inner(path)
            self.tasks[path] = Task(place, Site.parse(path))
        return self.tasks[path]

    def _inner(self, path: str) -> Place:
        """The latents or the error of a dictionary spliced at a place."""
        base, _, what = path.rpartition(".")
        outer = self.anatomy().places[base]
        axes = (*outer.axes[:-1], "latent") if what == "latents" else outer.axes
        return Place(path, "inner", (), axes=axes, order=outer.order, whole=outer.whole)

    # ---- where the taps go ---------------------------------------------------------------------------------------

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        places: dict[str, list[Place]] = {}
        for task in self.tasks.values():
            places.setdefault(task.place.kind, []).append(task.place)
        for place in places.get("input", ()):
            for path in place.modules:
                self.taps.add_before(path, self._at_input(path, place))
        for place in places.get("output", ()):
            self.taps.add_after(place.modules[0], self._at_output(place))
        for place in places.get("experts", ()):
            self.taps.add_after(place.modules[0], self._at_experts(place))
        inside = [*places.get("operand", ()), *places.get("result", ())]
        operations = Operations(self._pass)
        if inside:
            self._scopes(operations, inside)
            stack.enter_context(operations.ready())
        if self.overlay:
            stack.enter_context(Overlay(self.overlay))
        doors = [*places.get("door", ()), *places.get("eager", ())]
        if doors or inside:
            stack.enter_context(doorway(Doors(self.module, doors, self._pass, operations, self.counts).through))
        for path in {m for t in self.tasks.values() for m in t.place.modules}:
            self.taps.add_before(path, self._count(path), first=True)
        self.taps.add_before("", self._begin, first=True)

    def _begin(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.counts.clear()
        self.scratch.clear()
        self.shared.clear()
        if self.begin is not None:
            self.windows = self.begin(args, kwargs)
        return args, kwargs

    def _count(self, path: str):
        def count(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            self.counts[path] += 1
            return args, kwargs

        return count

    def _at_input(self, path: str, place: Place):
        def change(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if self.counts[path] - 1 != place.call:
                return args, kwargs
            slot = place.slot if place.slot is not None else next(slots(args, kwargs))[0]
            old = args[slot] if isinstance(slot, int) else kwargs[slot]
            new = self._once(place, old) if len(place.modules) > 1 else self._pass(place, old)
            if new is old:
                return args, kwargs
            if isinstance(slot, int):
                return (*args[:slot], new, *args[slot + 1 :]), kwargs
            return args, {**kwargs, slot: new}

        return change

    def _at_output(self, place: Place):
        path = place.modules[0]

        def change(args: tuple, kwargs: dict, output: Any) -> Any:
            if self.counts[path] - 1 != place.call:
                return output
            found = dict(outputs(output))
            slot = place.slot if place.slot in found else next(iter(found))
            new = self._pass(place, found[slot])
            return output if new is found[slot] else _replaced(output, slot, new)

        return change

    def _at_experts(self, place: Place):
        path, block = place.modules[0], place.path.rpartition(".")[0]
        places = self.anatomy().places
        into = places[f"{block}.router.chosen"].slot, places[f"{block}.router.weights"].slot

        def change(args: tuple, kwargs: dict, output: Any) -> Any:
            if self.counts[path] - 1 != place.call:
                return output
            module = self.module.get_submodule(path)
            made = contributions(module, args, kwargs, into, place.sizes["expert"])
            value = place.layout.read(made, self.batch)
            new = self._changed(self.tasks[place.path], value)
            return output if new is value else output + (new - value).sum(-2).reshape(output.shape)

        return change

    def _scopes(self, operations: Operations, places: list[Place]) -> None:
        """Function calls are counted in the modules that make them, and not in the modules those call."""
        by_module: dict[str, list[Place]] = {}
        for place in places:
            by_module.setdefault(place.modules[0], []).append(place)
        for path, mine in by_module.items():
            self.taps.add_before(path, self._enter(operations, path, mine))
            self.taps.add_after(path, _leave(operations), first=True)
            for name, child in self.module.get_submodule(path).named_modules():
                if name and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
                    inner = f"{path}.{name}" if path else name
                    self.taps.add_before(inner, _aside(operations), first=True)
                    self.taps.add_after(inner, _leave(operations))

    def _enter(self, operations: Operations, path: str, places: list[Place]):
        def enter(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            mine = [p for p in places if p.call == self.counts[path] - 1]
            operations.enter(Scope(mine) if mine else None)
            return args, kwargs

        return enter

    def _once(self, place: Place, raw: Tensor) -> Tensor:
        """A value that several modules read goes by once; the others are handed what the first one got."""
        if place.path in self.shared and self.shared[place.path][0] is raw:
            return self.shared[place.path][1]
        self.shared[place.path] = (raw, self._pass(place, raw))
        return self.shared[place.path][1]

    # ---- values going by -----------------------------------------------------------------------------------------

    def _pass(self, place: Place, raw: Tensor) -> Tensor:
        """A raw tensor on its way through a place."""
        task = self.tasks[place.path]
        value = place.layout.read(raw, self.batch)
        new = self._changed(task, value)
        if new is value:
            # Gradients are asked of what was kept, so the model must go on with that, or with a copy it may overwrite.
            if not (self.grad and task.keeps):
                return raw
            new = value.clone() if place.copy else value
        return place.layout.write(raw, new, self.batch)

    def _changed(self, task: Task, value: Tensor) -> Tensor:
        """The value after a task's edits, kept if it is to be kept."""
        task.fired = True
        here = self._here(task, value)
        for edit in task.edits:
            value = self._spliced(task, edit, value) if edit.kind == "splice" else edit.apply(value, here)
        if task.scratch:
            self.scratch[task.place.path] = value
        return self._kept(task, value, here) if task.keeps else value

    def _spliced(self, task: Task, edit: Edit, value: Tensor) -> Tensor:
        """value + (decode(edited latents) - decode(latents)) + (edited error - error): silent unless something is edited."""
        dictionary, error, path = edit.params["dictionary"], edit.params["error"], task.place.path
        source = value if edit.params["reads"] is None else self.scratch[reads(path, edit)]
        latents = dictionary.encode(source.detach() if error else source)
        inner, outer = self.tasks.get(f"{path}.latents"), self.tasks.get(f"{path}.error")
        edited = latents if inner is None else self._changed(inner, latents)
        if not error:
            return dictionary.decode(edited).to(value.dtype)
        if edited is latents and outer is None:
            return value
        made = dictionary.decode(latents).detach()
        new = value if edited is latents else value + (dictionary.decode(edited) - made).to(value.dtype)
        if outer is None:
            return new
        rest = (value - made).detach()
        rested = self._changed(outer, rest)
        return new if rested is rest else new + (rested - rest)

    def _kept(self, task: Task, value: Tensor, here: Here) -> Tensor:
        if self.grad and value.is_floating_point():
            # A view of its own: where others read the same tensor (a parallel block), their gradients are not this place's.
            value = value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
        for site in task.keeps:
            whole = self.grad or all(v == Span() for _, v in site.index)
            chosen = None if whole else select(site, here.axes, value, here.windows, self.late)
            if chosen is None and not whole:
                continue
            part = value if chosen is None else chosen.take(value)
            if not self.grad and (chosen is not None or task.place.copy):
                part = part.clone()
            index = () if whole else site.index
            old = self.kept.get(task.place.path)
            self.kept[task.place.path] = Kept(_joined(old, part, task.place, index), here.axes, here.windows, index)
        self.left -= 1
        if self.stop and not self.left:
            raise _Enough
        return value

    def _here(self, task: Task, value: Tensor) -> Here:
        place = task.place
        axes = place.axes or ("batch", "pos", "channel", *("channel",) * value.ndim)[: value.ndim]
        return Here(task.site, axes, self._windows(place, axes, value), self.late, self.rows)

    def _windows(self, place: Place, axes: Sequence[str], value: Tensor) -> dict[str, Window]:
        """Which tokens each position axis of a value holds."""
        found = {}
        stream = place.path.partition("blocks.")[0] if "blocks." in place.path else ""
        for dim, axis in enumerate(axes):
            if axis not in ("pos", "query", "key"):
                continue
            other = ".cross." in place.path and (axis == "key" or place.whole)
            own = self.windows.get("encoder." if other else stream)
            length = value.shape[dim]
            whole = axis == "key" or place.whole
            if own is None or (not whole and own.length != length):
                found[axis] = Window(length)
            elif whole:  # a sliding cache holds only the last of the tokens so far
                found[axis] = Window(length, max(own.start + own.length - length, 0), own.first, own.end)
            else:
                found[axis] = own
        return found


def reads(path: str, edit: Edit) -> str:
    """The concrete site that a spliced dictionary encodes from."""
    site: Site = edit.params["reads"]
    layer = Site.parse(path).layer
    parts = (str(layer) if isinstance(p, Span) and layer is not None else str(p) for p in site.parts)
    return ".".join(parts)


def _leave(operations: Operations):
    def leave(args: tuple, kwargs: dict, output: Any) -> Any:
        operations.leave()
        return output

    return leave


def _aside(operations: Operations):
    def enter(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        operations.enter(None)
        return args, kwargs

    return enter


def _joined(old: Kept | None, part: Tensor, place: Place, index: tuple) -> Tensor:
    """While generating, what is kept grows by each new token along its token axis."""
    at = next((i for i, a in enumerate(place.axes) if a == "pos"), None)
    if old is None or place.whole or at is None or index:
        return part
    return torch.cat([old.value, part], dim=at)


def _replaced(output: Any, slot: Slot, new: Tensor) -> Any:
    if slot is None:
        return new
    if isinstance(output, dict):
        output[slot] = new
        return output
    made = list(output)
    made[slot] = new  # type: ignore[index]
    return tuple(made) if isinstance(output, tuple) else made


def _raw(path: str) -> Place | None:
    """`@model.layers.3.self_attn.q_norm.out`: a module of the model itself, its first tensor in or out."""
    if not path.startswith("@"):
        return None
    name, _, side = path[1:].rpartition(".")
    return Place(path, "input" if side == "in" else "output", (name,))
