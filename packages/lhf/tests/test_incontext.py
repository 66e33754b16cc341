"""The trunk's short cuts, evaluation in context, and planning."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhf import (
    AD,
    DPT,
    ADConfig,
    ContinuousAD,
    ContinuousADConfig,
    DPTConfig,
    GridWorld,
    evaluate_in_context,
)
from lhf.incontext import Rolling, Window
from lhf.model import from_variant, load
from lhf.paper import inputs
from lhf.planning import plan

TINY = {"transitions": 9, "dim": 16, "layers": 3, "heads": 2, "inner": 24}


def bold(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough for decisions to differ."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter.shape[1] ** 0.5)
    return model.eval()


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 12), wanted=st.integers(1, 12))
def test_last_tokens_are_those_of_the_whole(count: int, wanted: int) -> None:
    trunk = bold(AD(ADConfig(**TINY))).trunk
    x = torch.randn(2, count, 16)
    whole = trunk(x)
    wanted = min(wanted, count)
    torch.testing.assert_close(trunk(x, last=wanted), whole[:, -wanted:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("learner", [AD, DPT])
def test_imagined_actions_are_those_asked_one_by_one(learner: type) -> None:
    model = bold(learner(learner.config_class(**TINY, size=5, dynamics=True)))
    asked = inputs(model.config, None, 3)
    actions = torch.randint(5, (3, 4))
    context = model.embed(*(asked[k] for k in ("states", "actions", "rewards", "next_states")))
    found = model.imagine(context, asked["query_states"], actions)
    for i in range(4):
        one = model(**asked | {"query_actions": actions[:, i]})
        for part in ("reward", "next_state"):
            torch.testing.assert_close(found[part][:, i], one[part], atol=1e-3, rtol=1e-3)
    action = one["action"] if learner is AD else one["action"][:, -1]
    torch.testing.assert_close(found["action"], action, atol=1e-3, rtol=1e-3)


def test_kept_keys_are_exact_for_ad_until_the_window_is_full() -> None:
    model = bold(AD(ADConfig(**TINY, size=5)))
    window, rolling = Window(model, 2), Rolling(model, 2)
    for step in range(20):
        states = torch.randint(5, (2, 2)).float()
        a, b = window.act(states), rolling.act(states)
        if step < 9:
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        token = model.embed(
            torch.randint(5, (2, 1, 2)), torch.randint(5, (2, 1)), torch.zeros(2, 1),
            torch.randint(5, (2, 1, 2)),
        )  # fmt: skip
        window.append(token)
        rolling.append(token)
        assert window.tokens.shape[1] == min(step + 1, 8)
    assert not torch.allclose(a, b, atol=1e-4)


def test_one_layer_keeps_its_keys_exactly() -> None:
    """Keys of the first layer know their own token alone: rolling equals the window for ever."""
    model = bold(AD(ADConfig(**{**TINY, "layers": 1}, size=5)))
    window, rolling = Window(model, 2), Rolling(model, 2)
    for _ in range(30):
        states = torch.randint(5, (2, 2)).float()
        torch.testing.assert_close(window.act(states), rolling.act(states), atol=1e-4, rtol=1e-4)
        token = torch.randn(2, 1, 16)
        window.append(token)
        rolling.append(token)


@pytest.mark.parametrize("context", ["window", "rolling"])
@pytest.mark.parametrize("learner", [AD, DPT])
def test_evaluation_repeats_with_its_seed(small, learner: type, context: str) -> None:
    model = bold(learner(learner.config_class(**TINY, size=5, dynamics=True))).train()

    def run(seed: int, **options: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        world = GridWorld(small, [0, 13, 24], 2)
        found = evaluate_in_context(
            model, world, 3, context=context, generator=generator, **options
        )
        assert found.returns.shape == (6, 3)
        assert found.curve == pytest.approx((found.returns / found.best[:, None]).mean(0))
        return found.returns

    assert (run(1) == run(1)).all()
    assert (run(1, beam=3) == run(1, beam=3)).all()
    assert model.training


def naive_plan(model, context, state, levels: int, beam: int) -> int:
    """Beam search of one task, a window at a time."""
    logits = model.imagine(context, state, torch.arange(5)[None])["action"][0]
    order = logits.argsort(descending=True).tolist()
    beams = [(0, [], context, state)]
    for _ in range(levels):
        children = []
        for score, actions, past, at in beams:
            for action in order if not actions else range(5):
                found = model.imagine(past, at, torch.tensor([[action]]))
                reward = found["reward"].argmax(-1)[0, 0].item()
                cell = found["next_state"].argmax(-1)[0, 0].item()
                after = torch.tensor([[cell // 5, cell % 5]]).float()
                token = model.embed(
                    at[:, None], torch.tensor([[action]]), torch.tensor([[reward]]), after[:, None]
                )
                longer = torch.cat([past[:, 1:], token], 1)
                children.append((score + reward, [*actions, action], longer, after))
        children.sort(key=lambda child: -child[0])  # stable
        beams = children[:beam]
    return beams[0][1][0]


@pytest.mark.parametrize("past", [8, 2])
@pytest.mark.parametrize("learner", [AD, DPT])
def test_plan_is_the_naive_beam_search(learner: type, past: int) -> None:
    model = bold(learner(learner.config_class(**TINY, size=5, dynamics=True)))
    with torch.no_grad():
        context, states = torch.randn(4, past, 16), torch.randint(5, (4, 2)).float()
        found = plan(model, context, states, levels=3, beam=3, sample=False)
        expected = [
            naive_plan(model, context[i : i + 1], states[i : i + 1], 3, 3) for i in range(4)
        ]
    assert found.tolist() == expected


class Line:
    """A continuous world: the closer the action to the state, the larger the reward."""

    horizon = 60

    def start(self) -> np.ndarray:
        self.state = np.array([[0.5, 0, 0], [-0.5, 0, 0]])
        return self.state

    def act(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.state, 1 - np.abs(actions[:, 0] - self.state[:, 0])


@pytest.mark.parametrize("variance", [True, False])
def test_continuous_control(variance: bool) -> None:
    config = ContinuousADConfig(
        **TINY, observation=3, action=2, dynamics=True, learn_variance=variance
    )
    model = ContinuousAD(config)
    greedy = evaluate_in_context(model, Line(), 2, sample=False)
    planned = evaluate_in_context(model, Line(), 2, candidates=4, sample=False, context="rolling")
    assert greedy.returns.shape == (2, 2)
    assert not np.allclose(greedy.returns, planned.returns, atol=1e-6)


def test_settings_that_can_not_be_are_named(small) -> None:
    plain = AD(ADConfig(**TINY, size=5))
    world = GridWorld(small, [0])
    with pytest.raises(ValueError, match="context='all': must be one of window, rolling"):
        evaluate_in_context(plain, world, 1, context="all")
    with pytest.raises(ValueError, match="episodes=0"):
        evaluate_in_context(plain, world, 0)
    with pytest.raises(ValueError, match="planning needs a model with dynamics=True"):
        evaluate_in_context(plain, world, 1, beam=2)
    with pytest.raises(ValueError, match="planning needs a model with dynamics=True"):
        plan(plain, torch.zeros(1, 8, 16), torch.zeros(1, 2), levels=2)
    with pytest.raises(ValueError, match="heads=3: must split dim=16"):
        ADConfig(**{**TINY, "heads": 3})
    with pytest.raises(ValueError, match="transitions=1: must be at least 2"):
        DPTConfig(transitions=1)
    with pytest.raises(ValueError, match="backbone='dpt': must be one of 'ad'"):
        ADConfig(backbone="dpt")
    with pytest.raises(ValueError, match="reward_range"):
        ContinuousADConfig(reward_range=(1.0, 0.0))
    with pytest.raises(ValueError, match="no variant 'gpt'; there are ad_darkroom"):
        from_variant("gpt")


def test_load_finds_the_learner(tmp_path) -> None:
    DPT(DPTConfig(**TINY)).save_pretrained(tmp_path / "m")
    assert isinstance(load(tmp_path / "m"), DPT)
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"dim": 3}')
    with pytest.raises(ValueError, match="backbone=None; must be one of ad, dpt"):
        load(tmp_path)
