"""Golden cases: what the authors' code prints for weights and inputs that follow from their names.

No weights travel with a case. Each tensor is drawn by NumPy's PCG64 seeded with the CRC-32 of its
key, then scaled by what the key says it is (a norm's scale, a bias, a matrix, a table).
"""

import importlib.util
import json
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Largest deviation allowed by default, in standard deviations of the output."""
GRADIENT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class GoldenCase:
    """One recorded run of the authors' code."""

    path: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @property
    def name(self) -> str:
        return self.record["case"]

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    @property
    def dtype(self) -> torch.dtype:
        """Float64 where sorting, argmax or recursion need it, else float32."""
        double = str(self.config.get("precision", "")).startswith("float64")
        return torch.float64 if double else torch.float32

    def state_dict(self) -> dict[str, Tensor]:
        """The authors' checkpoint, filled by the rule."""
        state = {}
        for key, shape in self.record["state_dict"].items():
            value = seeded_tensor(key, tuple(shape))
            for pattern, factor in (self.record.get("fill_scale") or {}).items():
                if re.search(pattern, key):
                    value = value * factor
            state[key] = value.to(self.dtype)  # filled first, then made double
        return state

    def inputs(self) -> dict[str, Any]:
        """The recorded inputs; drawn ones as tensors in the case's precision, others as they stand.

        What a specification says beyond the draw (a map, a factor) is for the paper to apply.
        """
        return {name: self._input(name, spec) for name, spec in self.record["inputs"].items()}

    def _input(self, name: str, spec: Any) -> Any:
        if not (isinstance(spec, dict) and "shape" in spec):
            return spec
        draw = {k: spec[k] for k in ("shape", "kind", "low", "high") if k in spec}
        value = seeded_input(name, **draw)
        return value.to(self.dtype) if value.is_floating_point() else value

    def tolerance(self, output: str) -> float:
        """The line that ``output`` must keep."""
        default = GRADIENT_TOLERANCE if output.startswith("grad") else TOLERANCE
        return (self.record.get("tolerance") or {}).get(output, default)

    def compare(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """How far each output lies from the record, in units of the record's own spread.

        Raises:
            ValueError: for an output that is recorded but not given, or has another shape.
        """
        expected = self.record["outputs"]
        if missing := sorted(expected.keys() - outputs.keys()):
            raise ValueError(f"golden case {self.name}: nothing to compare with {missing}")
        return {name: difference(outputs[name], expected[name]) for name in expected}

    def failures(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """The outputs beyond their tolerance, with how far they are."""
        return {k: d for k, d in self.compare(outputs).items() if not d <= self.tolerance(k)}


def golden_cases(package: str) -> list[GoldenCase]:
    """The cases that ``package`` carries: in its wheel, or in ``tests/goldens`` of its source."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    home = Path(spec.origin).parent
    folders = (home / "goldens", home.parents[1] / "tests" / "goldens")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return [GoldenCase(path) for path in sorted(folder.glob("*.json"))] if folder else []


def seeded_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """The value that the rule gives to the checkpoint entry ``key`` of ``shape``."""
    x: np.ndarray = np.asarray(_generator(key).standard_normal(shape, dtype=np.float32))
    if key.endswith("running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif key.endswith("running_mean") or x.ndim == 0:
        x = 0.1 * x
    elif x.ndim == 1:
        x = 1 + 0.1 * x if key.endswith("weight") else 0.1 * x
    else:
        x = x / math.sqrt(math.prod(shape[1:])) if key.endswith("weight") else 0.2 * x
    return torch.from_numpy(np.array(x, dtype=np.float32))


def seeded_input(name: str, shape: list[int], kind: str = "normal", **limits: int) -> Tensor:
    """The input ``name``: standard normal, uniform in [0, 1), or integers in [low, high)."""
    generator = _generator(f"input:{name}")
    match kind:
        case "normal":
            return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
        case "uniform":
            return torch.from_numpy(generator.random(shape, dtype=np.float32))
        case "integers":
            return torch.from_numpy(generator.integers(limits["low"], limits["high"], shape))
    raise ValueError(f"input kind {kind!r}: must be normal, uniform or integers")


def difference(value: Any, expected: Any) -> float:
    """Largest deviation in units of the recorded spread; plain records must be equal (0 or inf)."""
    if not (isinstance(expected, dict) and "sample" in expected):
        return 0.0 if value == expected else math.inf
    if list(value.shape) != expected["shape"]:
        raise ValueError(f"output has shape {list(value.shape)}, the case {expected['shape']}")
    flat = value.detach().double().flatten().cpu()
    if not flat.isfinite().all():
        return math.inf
    sample = torch.tensor(expected["sample"], dtype=torch.float64)
    scale = expected["std"] or abs(expected["mean"]) or 1.0
    got = flat[:: expected["stride"]][: len(sample)]
    return ((got - sample).abs().max() / scale).item()


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
