"""What must hold for every package (DESIGN: the contract of a paper package)."""

import ast
import copy
import dataclasses
import importlib
import importlib.metadata
import inspect
import io
import json
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from attention_core import (
    Paper,
    PaperModel,
    count_flops,
    count_parameters,
    from_dict,
    golden_cases,
    to_dict,
)
from attention_core.training import packaged_configs
from formers.bench import configuration

from .conftest import PACKAGES, ROOT
from .isolated import gap, loss_of

PARTS = ("README.md", "pyproject.toml", "tests", "src/{}/__init__.py", "src/{}/paper.py")
SECTIONS = ("Install", "Predict", "Train", "Results", "Cite")


def test_entry_points_name_every_package() -> None:
    found = {point.name for point in importlib.metadata.entry_points(group="formers.papers")}
    assert found == set(PACKAGES)


def test_package_has_its_parts(slug: str) -> None:
    home = ROOT / "packages" / slug
    missing = [part.format(slug) for part in PARTS if not (home / part.format(slug)).exists()]
    assert not missing
    project = tomllib.loads((home / "pyproject.toml").read_text())["project"]
    assert project["name"] == f"formers-{slug.replace('_', '-')}"
    headings = [
        line.lstrip("# ").strip()
        for line in (home / "README.md").read_text().splitlines()
        if line.startswith("#")
    ]
    assert [s for s in SECTIONS if not any(h.startswith(s) for h in headings)] == []
    assert "smoke" in packaged_configs(slug)


def test_paper_describes_itself(paper: Paper, slug: str) -> None:
    assert paper.slug == slug
    for field in ("title", "authors", "venue", "domain", "summary", "official", "bibtex"):
        assert getattr(paper, field), field
    assert paper.claims, "a paper without claims"
    ids = [claim.id for claim in paper.claims]
    assert len(set(ids)) == len(ids)
    for model in paper.models:
        assert issubclass(model, PaperModel)
        assert model.variants


def test_import_is_light(isolated: dict[str, Any]) -> None:
    assert isolated["imported"] == []


def test_no_package_imports_another(slug: str) -> None:
    forbidden = (set(PACKAGES) | {"formers"}) - {slug}
    for file in (ROOT / "packages" / slug).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            used = {name.split(".")[0] for name in names} & forbidden
            assert not used, f"{file.name} imports {used}"


def test_configurations_round_trip_through_json(paper: Paper) -> None:
    for config in [*paper.variants.values(), *paper.tiny]:
        assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config
        field = dataclasses.fields(config)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field, getattr(config, field))


def test_unknown_variants_and_fields_are_named(paper: Paper) -> None:
    for model in paper.models:
        with pytest.raises(ValueError, match=next(iter(model.variants))):
            model.from_variant("no-such-variant")
        with pytest.raises(ValueError, match="no_such_field"):
            model.from_variant(next(iter(model.variants)), no_such_field=1)


def test_golden_cases(paper: Paper, slug: str) -> None:
    cases = golden_cases(slug)
    assert cases, "no golden cases in tests/goldens"
    assert paper.golden is not None
    for case in cases:
        assert case.failures(paper.golden(case)) == {}, case.name


def test_parameter_counts(paper: Paper) -> None:
    for name, count in paper.parameters.items():
        with torch.device("meta"):
            assert count_parameters(paper.build(paper.variants[name])) == count, name


def test_every_network_has_a_tiny_configuration(paper: Paper) -> None:
    covered = {type(paper.build(config)) for config in paper.tiny}
    assert covered == set(paper.models)


def test_save_and_load(paper: Paper, tmp_path: Path) -> None:
    for i, (model, inputs) in enumerate(tiny_models(paper)):
        model.save_pretrained(tmp_path / str(i))
        again = type(model).from_pretrained(tmp_path / str(i))
        assert again.config == model.config
        assert gap(run(again, inputs), run(model, inputs)) == 0


def test_output_does_not_depend_on_the_batch(paper: Paper) -> None:
    for config in paper.tiny:
        model, inputs = paper.build(config).eval(), paper.inputs(config, None, 3)
        whole = run(model, inputs)
        reversed_inputs = {key: value.flip(0) for key, value in inputs.items()}
        assert gap(take(run(model, reversed_inputs), [2, 1, 0]), whole) < 1e-4
        alone = run(model, {key: value[:1] for key, value in inputs.items()})
        assert gap(alone, take(whole, [0])) < 1e-4


def test_autocast(paper: Paper) -> None:
    for model, inputs in tiny_models(paper):
        full = run(model, inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = run(model, inputs)
        assert gap(as_float(half), as_float(full)) < 0.5


def test_compiles_without_graph_breaks(paper: Paper, isolated: dict[str, Any]) -> None:
    assert len(isolated.get("compile", [])) == len(paper.tiny)
    assert all(found < 1e-3 for found in isolated.get("compile", []))


def test_one_step_on_two_processes_equals_one(isolated: dict[str, Any]) -> None:
    assert all(found < 1e-5 for found in isolated.get("ddp", []))


def test_copies_and_pickles(paper: Paper) -> None:
    for model, inputs in tiny_models(paper):
        expected = run(model, inputs)
        buffer = io.BytesIO(pickle.dumps(model))
        for twin in (copy.deepcopy(model), pickle.load(buffer)):
            assert gap(run(twin, inputs), expected) == 0


def test_builds_and_runs_on_the_meta_device(paper: Paper) -> None:
    for config in paper.tiny:
        with torch.device("meta"):
            model = paper.build(config)
            assert {t.device.type for t in model.state_dict().values()} <= {"meta"}
            assert count_flops(model, **paper.inputs(config, None, 1)) > 0


def test_gradients_reach_every_parameter(paper: Paper) -> None:
    for model, inputs in tiny_models(paper):
        model.train()
        loss_of(model(**inputs)).backward()
        silent = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
        ]
        unexplained = [
            name
            for name in silent
            if not any(re.search(pattern, name) for pattern in paper.gradient_free)
        ]
        assert unexplained == []


def test_public_names_are_documented(slug: str) -> None:
    package = importlib.import_module(slug)
    assert package.__all__
    for name in package.__all__:
        thing = getattr(package, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        assert inspect.getdoc(thing), f"{slug}.{name} has no docstring"
        if inspect.isclass(thing) and issubclass(thing, torch.nn.Module):
            source = inspect.getsource(thing.forward)
            assert "[Tensor" in source, f"{slug}.{name}.forward tells no shapes"


def tiny_models(paper: Paper) -> list[tuple[PaperModel, dict[str, torch.Tensor]]]:
    assert paper.inputs is not None or not paper.tiny
    return [(paper.build(c).eval(), paper.inputs(c, None, 2)) for c in paper.tiny]


def run(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> Any:
    torch.manual_seed(3)  # some papers draw random numbers in evaluation too
    with torch.no_grad():
        return model(**inputs)


def take(outputs: Any, rows: list[int]) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs[rows]
    if isinstance(outputs, dict):
        return {key: take(value, rows) for key, value in outputs.items()}
    return [take(value, rows) for value in outputs]


def as_float(outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {key: as_float(value) for key, value in outputs.items()}
    return [as_float(value) for value in outputs]


def test_a_benchmark_grows_its_inputs(paper: Paper) -> None:
    """A network of one size would be raced over the same input again and again."""
    if paper.benchmark is None:
        return
    assert paper.inputs is not None
    config = configuration(paper, paper.benchmark.variant)
    with torch.device("meta"):
        found = [
            sum(x.numel() for x in paper.inputs(config, size, 1).values())
            for size in sorted(paper.benchmark.sizes)
        ]
    assert found == sorted(set(found))
