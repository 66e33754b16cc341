"""Parity with the authors' code.

The case that stands here was written with the naive forward pass below, since the scaffold knows no
authors. Replace it by cases recorded from the authors' code, and drop the naive pass.
"""

import math

import pytest
import torch
from attention_core import CheckpointError, golden_cases
from resformer import Resformer
from resformer.paper import PAPER
from torch.nn.functional import gelu, layer_norm, linear

CASES = golden_cases("resformer")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_case(case):
    assert case.failures(PAPER.golden(case)) == {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_naive_pass_gives_the_same(case):
    state, heads = case.state_dict(), case.config["heads"]

    def part(x, name, function=linear):
        return function(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, weight, bias):
        return layer_norm(x, weight.shape, weight, bias)

    x = part(case.inputs()["x"], "embed")
    for block in ("blocks.0", "blocks.1"):
        q, k, v = part(part(x, f"{block}.norm1", norm), f"{block}.attn.qkv").chunk(3, -1)
        outputs = []
        split = (x.chunk(heads, -1) for x in (q, k, v))
        for q1, k1, v1 in zip(*split, strict=True):
            weights = torch.softmax(q1 @ k1.mT / math.sqrt(q1.shape[-1]), -1)
            outputs.append(weights @ v1)
        x = x + part(torch.cat(outputs, -1), f"{block}.attn.proj")
        hidden = gelu(part(part(x, f"{block}.norm2", norm), f"{block}.mlp.fc1"))
        x = x + part(hidden, f"{block}.mlp.fc2")
    logits = part(part(x, "norm", norm).mean(1), "head")
    assert case.failures({"logits": logits}) == {}


def test_a_file_of_something_else_is_named():
    with pytest.raises(CheckpointError, match=r"embed\.weight.* missing; it starts with fc"):
        Resformer.from_official({"fc.weight": torch.ones(1)})


def test_a_missing_entry_is_named():
    state = CASES[0].state_dict()
    del state["blocks.1.attn.proj.bias"]
    with pytest.raises(CheckpointError, match=r"missing: blocks\.1\.attention\.out\.bias"):
        Resformer.from_official(state)
