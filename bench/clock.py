"""An alternating timer: contenders take turns, and what counts is their ratio within a round.

On a machine that others use too, a second is worth more at one moment than at the next, and seconds measured one after
the other say more about the neighbours than about the code. So every round runs every contender once, each round begins
with another one, and only times of the same round are compared. What is reported is the median of those ratios, and the
quartiles, between which the middle half of them lies.

The primary clock counts the CPU time of this process (nnsight works in threads of its own), with torch held to one thread:
what others do hardly touches it. Wall time with two threads is what a user feels; it means something on a quiet machine
only. Whichever it is, every contender runs with the same number of torch threads.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Contender = TypeVar("Contender")


@dataclass(frozen=True)
class Clock:
    """What a second is."""

    name: str
    threads: int
    read: Callable[[], float]


CPU = Clock("CPU time, 1 thread", 1, time.process_time)
WALL = Clock("wall time, 2 threads", 2, time.perf_counter)


@dataclass(frozen=True)
class Spread:
    """One number a round: their median and the quartiles."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of some numbers.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.5, high=2.5, rounds=3)
        """
        low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
        return cls(median, low, high, len(values))

    def scaled(self, by: float) -> Spread:
        """The same in another unit."""
        return Spread(self.median * by, self.low * by, self.high * by, self.rounds)


@dataclass(frozen=True)
class Race:
    """What was measured: for each quantity and contender one number a round."""

    measured: Mapping[str, Mapping[str, list[float]]]

    def ratio(self, over: str, under: str, what: str = "seconds") -> Spread:
        """One contender in units of another, round by round.

        >>> Race({"seconds": {"a": [2.0, 9.0], "b": [1.0, 3.0]}}).ratio("a", "b")
        Spread(median=2.5, low=2.25, high=2.75, rounds=2)
        """
        return Spread.of([a / b for a, b in zip(self.measured[what][over], self.measured[what][under])])

    def gap(self, more: str, less: str, what: str = "seconds") -> Spread:
        """One contender minus another, round by round."""
        return Spread.of([a - b for a, b in zip(self.measured[what][more], self.measured[what][less])])


def alternate(contenders: Mapping[str, Contender], rounds: int, measure: Callable[[Contender], dict[str, float]],
              warm: int = 1) -> Race:  # fmt: skip
    """Let the contenders take turns; each round begins with the next one. The first `warm` rounds do not count."""
    names = list(contenders)
    found: dict[str, dict[str, list[float]]] = {}
    for n in range(-warm, rounds):
        for name in (names[(n + i) % len(names)] for i in range(len(names))):
            gc.collect()
            for what, number in measure(contenders[name]).items():
                if n >= 0:
                    found.setdefault(what, {}).setdefault(name, []).append(number)
    return Race(found)


def timing(clock: Clock, calls: int = 1) -> Callable[[Callable[[], Any]], dict[str, float]]:
    """Measures a function: the mean time of some calls in a row."""
    import torch

    def measure(contender: Callable[[], Any]) -> dict[str, float]:
        torch.set_num_threads(clock.threads)
        started = clock.read()
        for _ in range(calls):
            contender()
        return {"seconds": (clock.read() - started) / calls}

    return measure


def process(command: Sequence[str]) -> dict[str, float]:
    """Measures a process of its own: its CPU and wall seconds, and the numbers it prints as a last line of JSON."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, **_told(done.stdout)}


def script(code: str, *arguments: str) -> list[str]:
    """The command that runs some Python in a fresh interpreter."""
    return [sys.executable, "-c", code, *arguments]


def _told(said: str) -> dict[str, float]:
    last = said.strip().rpartition("\n")[2]
    try:
        return {k: float(v) for k, v in json.loads(last).items()}
    except (json.JSONDecodeError, AttributeError):
        return {}
