"""Is the package still the paper's model? Golden cases, parameter counts, checkpoints of users."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from attention_core import (
    GoldenCase,
    Paper,
    PaperModel,
    count_parameters,
    golden_cases,
    read_checkpoint,
)


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """How one golden case went."""

    case: str
    outputs: int = 0
    output: str = ""
    """The one closest to (or farthest beyond) its tolerance."""
    deviation: float = 0.0
    """Of that output, in standard deviations of the recorded one."""
    tolerance: float = 0.0
    error: str = ""

    @property
    def passed(self) -> bool:
        return not self.error and self.deviation <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class CountResult:
    """A variant's parameters, counted and as the paper has them."""

    variant: str
    expected: int
    counted: int | None

    @property
    def passed(self) -> bool:
        return self.counted == self.expected


@dataclass(frozen=True, kw_only=True)
class CheckpointResult:
    """What a file turned out to be."""

    entries: int
    """Tensors in the file."""
    model: str = ""
    """The network that it fits, each entry accounted for."""
    weights: int = 0
    """Parameters of that network."""
    variants: tuple[str, ...] = ()
    """The published variants that it may be."""
    differences: str = ""
    """For an unpublished size: how it differs from the nearest variant."""
    errors: tuple[str, ...] = ()
    """Why it fits none of the networks, by the settings tried."""

    @property
    def passed(self) -> bool:
        return bool(self.model)


def check_cases(paper: Paper) -> Iterator[CaseResult]:
    """Run the golden cases that the package carries; none if it has no runner for them."""
    if paper.golden is None:
        return
    for case in golden_cases(paper.slug):
        yield _check_case(case, paper.golden)


def count_variants(paper: Paper) -> Iterator[CountResult]:
    """Recount the published parameter counts on the meta device."""
    variants = paper.variants
    for name, expected in paper.parameters.items():
        counted = None
        if name in variants:
            with torch.device("meta"):
                counted = count_parameters(paper.build(variants[name]))
        yield CountResult(variant=name, expected=expected, counted=counted)


def identify(paper: Paper, file: Path) -> CheckpointResult:
    """Load a checkpoint strictly and tell which variants it may be.

    Every network is tried with the settings of each of its variants: what the tensors can't tell
    may leave more than one.

    Raises:
        attention_core.CheckpointError: the file can't be read.
        FileNotFoundError: there is no such file.
    """
    state = read_checkpoint(file)
    errors: dict[str, None] = {}
    for model in paper.models:
        fitting: list[PaperModel] = []
        settings = {repr(s): s for s in map(paper.settings, model.variants.values())}
        for setting in settings.values():
            try:
                fitting.append(model.from_official(state, **setting))  # type: ignore[attr-defined]
            except (ValueError, KeyError) as error:
                errors[f"{model.__name__}: {_one_line(error)}"] = None
        if fitting:
            configs = [loaded.config for loaded in fitting]
            same = tuple(name for name, config in model.variants.items() if config in configs)
            return CheckpointResult(
                entries=len(state),
                model=model.__name__,
                weights=count_parameters(fitting[0]),
                variants=same,
                differences="" if same else _differences(configs[0], dict(model.variants)),
            )
    return CheckpointResult(entries=len(state), errors=tuple(errors))


def _check_case(case: GoldenCase, run: Callable[[GoldenCase], Mapping[str, Any]]) -> CaseResult:
    name = case.path.stem
    try:
        deviations = case.compare(run(case))
    except Exception as error:  # a case that raises is a failed case; the others still run
        return CaseResult(case=name, error=f"{type(error).__name__}: {_one_line(error)}")
    if not deviations:
        return CaseResult(case=name, error="the case records no outputs")

    def excess(output: str) -> float:
        share = deviations[output] / max(case.tolerance(output), 1e-30)
        return math.inf if math.isnan(share) else share

    worst = max(deviations, key=excess)
    return CaseResult(
        case=name,
        outputs=len(deviations),
        output=worst,
        deviation=deviations[worst],
        tolerance=case.tolerance(worst),
    )


def _differences(config: Any, variants: dict[str, Any]) -> str:
    """The fields in which ``config`` differs from the variant that it shares most with."""

    def fields(variant: Any) -> dict[str, tuple[Any, Any]]:
        names = [field.name for field in dataclasses.fields(variant)]
        pairs = {name: (getattr(config, name), getattr(variant, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    if not variants:
        return ""
    name = min(variants, key=lambda variant: len(fields(variants[variant])))
    changed = fields(variants[name]).items()
    return f"{name} with " + ", ".join(f"{f}={own!r} (not {its!r})" for f, (own, its) in changed)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"
