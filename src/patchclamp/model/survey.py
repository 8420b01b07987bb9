"""Survey: the sheet on which a model's places are put down while its recording is read.

A value that has a name becomes a place: tapped where it is made (a module's output, the result of a function call) or
where it is read (a module's input, an operand). What cannot be read with certainty is refused, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from patchclamp.model import interior
from patchclamp.model.interior import Slice
from patchclamp.model.place import Layout, Place
from patchclamp.model.trail import inner_visit
from patchclamp.model.watch import DOOR, Call, Recording, Visit

PLAIN = Layout()
WINDOWS = "its rows are windows or frames of the input, not prompts"


@dataclass(eq=False)
class Survey:
    """What is being filled in, and the recording it is read from."""

    tape: Recording
    batch: int
    places: dict[str, Place] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    live: dict[int, set[int]] = field(default_factory=dict)

    def put(self, path: str, kind: str, visit: Visit, vn: int, axes: tuple[str, ...], **more) -> None:
        """Write down a place whose raw tensor is a value of the recording."""
        raw = self.tape.values[vn]
        layout = more.pop("layout", Layout())
        if raw.ndim == 2 and "pos" in axes and raw.shape[0] != self.batch:
            layout = Layout((("tokens",), *layout.steps))
        elif raw.ndim == 3 and raw.shape[0] != self.batch and raw.shape[1] == self.batch and axes[:2] == ("batch", "pos"):
            layout = Layout((("swap", 0, 1), *layout.steps))  # XLNet keeps tokens first
        value = layout.read(raw, self.batch)
        if axes[:1] == ("batch",) and value.shape[0] != self.batch:
            self.refused[path] = WINDOWS
            return
        sizes = {a: n for a, n in zip(axes, value.shape) if a not in ("batch", "pos", "query", "key")}
        modules = more.pop("modules", (visit.path,))
        order = more.pop("order", visit.begin if kind == "input" else visit.end)
        self.places[path] = Place(path, kind, modules, visit.ordinal, axes=axes, sizes=sizes, layout=layout,
                                  copy=vn in self.tape.changed, order=order, **more)  # fmt: skip

    def produced(self, path: str, block: Visit, vn: int, axes: tuple[str, ...], layout: Layout = PLAIN) -> None:
        """A value tapped where it is made: as a module's output, else as the result of one function call."""
        visit = inner_visit(self.tape, block, vn)
        if visit is not None and visit.path != DOOR:
            source = self.tape.source(vn)
            slot = next(s for s, v in visit.outs.items() if self.tape.source(v) == source)
            self.put(path, "output", visit, vn, axes, slot=slot, layout=layout)
            return
        call = self.tape.producer[vn]
        scope = self.tape.visits[call.visit]
        self.put(path, "result", scope, vn, axes, op=self.nth(call), slot=call.outs.index(vn), layout=layout, order=call.time)

    def consumed(self, path: str, call: Call, vn: int, axes: tuple[str, ...], layout: Layout = PLAIN, **more) -> None:
        """A value tapped where one function call reads it."""
        scope = self.tape.visits[call.visit]
        self.put(path, "operand", scope, vn, axes, op=self.nth(call), slot=call.ins.index(vn), layout=layout,
                 order=call.time, **more)  # fmt: skip

    def led_to(self, block: Visit) -> set[int]:
        """The times of the calls that led to what a block returned; others only looked at a shape or a dtype."""
        if block.number not in self.live:
            calls = (c for v in block.outs.values() for c in self.tape.ancestors(v, set(), block.begin)[0])
            self.live[block.number] = {c.time for c in calls}
        return self.live[block.number]

    def nth(self, call: Call) -> tuple[str, int]:
        """A call's name, and how many of that name its module made before it."""
        before = [c for c in self.tape.calls[: call.time] if c.visit == call.visit and c.name == call.name]
        return call.name, len(before)

    def read(self, path: str, block: Visit, part: Slice, readers: list[Visit], writes: list[int]) -> None:
        """What a write reads: tapped at the smallest module that reads it, else at each of its readers."""
        found = interior.enclosing(self.tape, block, [v.number for v in readers], part.read, writes)
        axes = ("batch", "pos", "d_model")
        if found is not None:
            self.put(path, "input", found[0], part.read, axes, slot=found[1])
            return
        alias = interior.alias(self.tape, part.read)
        slots = [next(((s, v) for s, v in r.ins.items() if v in alias), None) for r in readers]
        if slots[0] is not None and len(set(slots)) == 1:
            slot, vn = slots[0]
            self.put(path, "input", readers[0], vn, axes, slot=slot, modules=tuple(r.path for r in readers))
        elif all(c in part.calls for v in alias for c in self.tape.consumers.get(v, []) if c.time in self.led_to(block)):
            self.produced(path, block, part.read, axes)
        else:
            self.refused[path] = "what it reads passes through no module of its own"
