"""The authors' numbers, and what `from_official` makes of their checkpoints."""

import pytest
import torch
from attention_core import CheckpointError, GoldenCase, golden_cases
from lhf import AD, DPT, ContinuousAD
from lhf.golden import run_golden

CASES = {case.name: case for case in golden_cases("lhf")}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_golden_case(case: GoldenCase) -> None:
    assert case.failures(run_golden(case)) == {}


def test_sizes_are_read_off_the_checkpoint() -> None:
    state = CASES["ad_darkroom"].state_dict()
    assert AD.from_official({"step": 1, "model": state}).config == AD.variants["ad_darkroom"]
    state = CASES["dicp_dpt"].state_dict()
    model = DPT.from_official(state, transitions=30)
    assert model.config.dynamics
    assert (model.config.size, model.config.heads, model.config.transitions) == (9, 4, 30)


def test_foreign_checkpoints_and_settings_are_named() -> None:
    state = CASES["ad_darkroom"].state_dict()
    with pytest.raises(CheckpointError, match=r"no embed_context\.weight.*it starts with fc"):
        AD.from_official({"fc.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match="this is a checkpoint of ad, not of dpt"):
        DPT.from_official(state)
    with pytest.raises(CheckpointError, match="this is a checkpoint of ad, not of continuous_ad"):
        ContinuousAD.from_official(state)
    with pytest.raises(ValueError, match="size=5: the checkpoint has 9"):
        AD.from_official(state, size=5)
    with pytest.raises(CheckpointError, match=r"missing: head_action\.bias"):
        AD.from_official({k: v for k, v in state.items() if k != "pred_action.bias"})
