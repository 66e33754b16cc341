"""The reference environment's and transformers' numbers, and checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from attention_core import CheckpointError, GoldenCase, golden_cases
from pidt import PIDT
from pidt.golden import run_golden

CASES = {case.name: case for case in golden_cases("pidt")}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_golden_case(case: GoldenCase) -> None:
    assert case.failures(run_golden(case)) == {}


def test_sizes_are_read_off_the_checkpoint() -> None:
    model = PIDT.from_official(CASES["decision_transformer"].state_dict(), action_tanh=False)
    assert model.config == type(model.config)(mask=False)


def test_foreign_checkpoints_are_named() -> None:
    state = CASES["decision_transformer"].state_dict()
    with pytest.raises(
        CheckpointError, match=r"not a Decision Transformer: embed_timestep\.weight"
    ):
        PIDT.from_official({"fc.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"unexpected: encoder\.h\.extra\.weight"):
        PIDT.from_official(state | {"encoder.h.extra.weight": torch.zeros(2)})
    with pytest.raises(ValueError, match="heads=3: must divide dim=128"):
        PIDT.from_official(state, heads=3)


@pytest.mark.parametrize(("activation", "heads"), [("gelu_new", 3), ("relu", 1)])
def test_transformers_model_gives_the_same(activation: str, heads: int) -> None:
    from transformers import DecisionTransformerConfig, DecisionTransformerModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "n_layer": 2, "n_head": heads, "n_positions": 32, "n_inner": 40}
    theirs = DecisionTransformerModel(
        DecisionTransformerConfig(
            state_dim=7, act_dim=3, max_ep_len=9, activation_function=activation, **sizes
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = PIDT.from_official(theirs.state_dict(), heads=heads, activation=activation)
    batch = {
        "states": torch.randn(2, 5, 7),
        "actions": torch.randn(2, 5, 3),
        "returns_to_go": torch.rand(2, 5, 1),
        "timesteps": torch.arange(5).expand(2, -1),
    }
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    with torch.no_grad():
        expected = theirs(**batch, rewards=None, attention_mask=mask, return_dict=True)
        found = ours(**batch, attention_mask=mask)
    seen = mask.bool()
    for a, b in ((found.actions, expected.action_preds), (found.states, expected.state_preds),
                 (found.returns, expected.return_preds)):  # fmt: skip
        torch.testing.assert_close(a[seen], b[seen], atol=1e-5, rtol=1e-5)


def test_gpt2_trunk(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    gpt2 = GPT2Model(GPT2Config(vocab_size=5, n_positions=6, n_embd=8, n_layer=2, n_head=2)).eval()
    gpt2.save_pretrained(tmp_path)
    model = PIDT.from_gpt2(tmp_path, state_dim=4, actions=3, steps=5).eval()
    assert model.config.activation == "gelu_new"
    assert (model.config.layers, model.config.positions) == (2, 6)
    x = torch.randn(1, 6, 8)
    with torch.no_grad():
        place = torch.zeros(1, 6, dtype=torch.long)
        expected = gpt2(inputs_embeds=x, position_ids=place).last_hidden_state
        y = x + model.positions.weight[0]
        for block in model.blocks:
            y = block(y, torch.ones(6, 6, dtype=torch.bool).tril())
    torch.testing.assert_close(model.norm(y), expected, atol=1e-5, rtol=1e-5)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="holds a bert, not a gpt2"):
        PIDT.from_gpt2(tmp_path)
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        PIDT.from_gpt2(tmp_path / "nowhere")
