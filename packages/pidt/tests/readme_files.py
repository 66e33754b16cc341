"""What the README's commands find in their folder."""

import json
from pathlib import Path

import torch
from attention_core import golden_cases
from pidt.scenarios import REFERENCE


def make(folder: Path) -> None:
    case = next(case for case in golden_cases("pidt") if case.name == "decision_transformer")
    torch.save(case.state_dict(), folder / "decision_transformer.pt")
    (folder / "outage.json").write_text(json.dumps(REFERENCE))
