"""Outages to train and test on: one problem from a file, and random ones around it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidt.feeder import Feeder, case33bw
from pidt.problem import Restoration, Source

FIELDS = ("switches", "sources", "damaged", "load_weights", "v_min", "v_max", "penalty", "horizon")
REFERENCE: dict[str, Any] = {
    "switches": [3, 6, 9, 12, 15, 18, 22, 25, 28, 31, 33, 34, 35, 36, 37],
    "sources": {
        8: {"vm_pu": 1.0, "p_max_mw": 1.5, "q_max_mvar": 1.1},
        25: {"vm_pu": 1.0, "p_max_mw": 1.2, "q_max_mvar": 1.0},
    },
    "places": [8, 25, 18, 21],
}
"""The reference outage on case33bw (our definition): substation dead, two black-start sources."""
TRIES = 200


def reference() -> Restoration:
    """The reference problem; its optimum is 2.600 MW of 3.715, greedy stops at 2.420."""
    return problem(case33bw(), REFERENCE)


def read_scenario(path: str | Path) -> dict[str, Any]:
    """The fields of a scenario file.

    Raises:
        ValueError: for text that is not a JSON object, or a field that is not known.
    """
    try:
        told = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path}: must be a JSON object")
    known = (*FIELDS, "places")
    if unknown := sorted(set(told) - set(known)):
        raise ValueError(f"{path}: unknown {', '.join(unknown)}; it may have {', '.join(known)}")
    return told


def problem(feeder: Feeder, scenario: Mapping[str, Any]) -> Restoration:
    """The restoration problem of a feeder and the fields of a scenario."""
    told = {name: scenario[name] for name in FIELDS if name in scenario}
    for bus, source in (told.get("sources") or {}).items():
        if isinstance(source, Source):
            continue
        if not isinstance(source, Mapping):
            raise ValueError(f"source {bus}: must have vm_pu, p_max_mw, q_max_mvar, got {source!r}")
        if unknown := sorted({*source} - {"vm_pu", "p_max_mw", "q_max_mvar"}):
            raise ValueError(f"source {bus}: unknown {', '.join(unknown)}")
    return Restoration(feeder, **told)


@dataclass(frozen=True, kw_only=True)
class Scenarios:
    """Random outages around a scenario.

    Sources move among ``places`` and keep their order, their limits vary by ``spread``, loads are
    scaled together, ``damage`` switches are lost, and the horizon may be cut short.
    """

    feeder: Feeder
    scenario: Mapping[str, Any]
    spread: float = 0.2
    load: tuple[float, float] = (0.8, 1.1)
    damage: int = 1
    horizon: tuple[int, int] | None = None
    """Least and most steps, drawn anew for each outage; not told when ``None``."""

    def __post_init__(self) -> None:
        if not 0 <= self.spread < 1:
            raise ValueError(f"spread={self.spread}: must be in [0, 1)")
        if not 0 < self.load[0] <= self.load[1]:
            raise ValueError(f"load={self.load}: must be two positive factors in order")
        if self.damage < 0:
            raise ValueError(f"damage={self.damage}: must be at least 0")

    def draw(self, generator: np.random.Generator) -> Restoration:
        """One outage in which something can be restored.

        Raises:
            ValueError: when none was found in `TRIES` draws; the message says what was wrong last.
        """
        why = ""
        for _ in range(TRIES):
            try:
                found = self._draw(generator)
            except ValueError as error:
                why = str(error)
                continue
            why = found.overload or "no first switch is feasible"
            if not found.overload and found.feasible(found.start)[:-1].any():
                return found
        raise ValueError(f"no outage among {TRIES} in which anything can be restored: {why}")

    def many(self, count: int, seed: int) -> Iterator[Restoration]:
        """``count`` outages; the same for the same seed."""
        generator = np.random.default_rng(seed)
        return (self.draw(generator) for _ in range(count))

    def _draw(self, generator: np.random.Generator) -> Restoration:
        told = dict(self.scenario)
        sources = {int(bus): dict(source) for bus, source in told["sources"].items()}
        places = told.get("places") or list(sources)
        buses = sorted(int(b) for b in generator.choice(places, len(sources), replace=False))
        told["sources"] = {}
        for bus, source in zip(buses, sources.values(), strict=True):
            for field in ("p_max_mw", "q_max_mvar"):
                if field in source:
                    source[field] *= generator.uniform(1 - self.spread, 1 + self.spread)
            told["sources"][bus] = source
        switches = list(told.get("switches") or 1 + np.flatnonzero(self.feeder.switchable))
        told["switches"] = switches
        known = set(told.get("damaged", ()))
        free = [switch for switch in switches if switch not in known]
        lost = generator.choice(free, min(self.damage, len(free)), replace=False)
        told["damaged"] = [*known, *map(int, lost)]
        if self.horizon is not None:
            told["horizon"] = int(generator.integers(self.horizon[0], self.horizon[1] + 1))
        return problem(self.feeder.scaled(generator.uniform(*self.load)), told)


def reference_scenarios(**changes: Any) -> Scenarios:
    """Random outages around the reference."""
    return Scenarios(feeder=case33bw(), scenario=REFERENCE, **changes)
