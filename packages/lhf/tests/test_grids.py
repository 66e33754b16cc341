"""Grids and their gymnasium environments."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from lhf.environments import IDS, GridEnv
from lhf.grids import FAMILIES, PERMUTATIONS, GridFamily, GridWorld, family

MOVES = {0: (1, 0), 1: (-1, 0), 2: (0, 1), 3: (0, -1), 4: (0, 0)}


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_accepts_every_environment(name: str) -> None:
    check_env(gymnasium.make(f"lhf.environments:{name}").unwrapped)
    many = gymnasium.make_vec(name, vectorization_mode="vector_entry_point", tasks=[0, 5], copies=3)
    states, _ = many.reset(seed=1)
    assert many.observation_space.contains(states)
    for _ in range(many.unwrapped.family.horizon):
        states, _, ended, _, infos = many.step(many.action_space.sample())
        assert many.observation_space.contains(states)
    assert ended.all()
    assert infos["final_obs"].shape == (6, 2)
    assert (states == many.reset()[0]).all()


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["darkroom", "permuted", "key_to_door"]),
    size=st.integers(1, 20),
    draw=st.randoms(use_true_random=False),
)
def test_worlds_step_as_the_rules_say(kind: str, size: int, draw) -> None:
    grids = GridFamily(kind=kind, size=size, horizon=12)
    tasks = [draw.randrange(grids.count) for _ in range(3)]
    world = GridWorld(grids, tasks, 2)
    places = np.tile(np.array(divmod(grids.start, size)), (3, 2, 1))
    paid = np.zeros((3, 2), int)
    for step in range(12):
        actions = np.array([[draw.randrange(5) for _ in range(2)] for _ in range(3)])
        cells, rewards, over = world.step(actions)
        for i, task in enumerate(tasks):
            for j in range(2):
                action = actions[i, j]
                if kind == "permuted":
                    action = PERMUTATIONS[task][action]
                places[i, j] = np.clip(places[i, j] + MOVES[int(action)], 0, size - 1)
                at = tuple(places[i, j])
                told = grids.describe(task)
                if kind == "permuted":
                    expected = at == (size - 1, size - 1)
                elif kind == "darkroom":
                    expected = at == told
                else:
                    targets = [told[:2], told[2:], None]
                    expected = at == targets[paid[i, j]]
                    paid[i, j] += expected
                assert rewards[i, j] == expected
        assert (grids.coordinates(cells) == places).all()
        assert over == (step == 11)


@pytest.mark.parametrize("name", FAMILIES)
def test_best_actions_earn_the_best_return(name: str) -> None:
    grids = FAMILIES[name]
    tasks = grids.split()[1][:40]
    if grids.kind == "key_to_door":  # with both on one cell the agent must leave the door's wait
        tasks = [task for task in tasks if task // 81 != task % 81]
    world, earned = GridWorld(grids, tasks), 0
    for _ in range(grids.horizon):
        earned = earned + world.step(world.best_actions())[1][:, 0].astype(int)
    assert (earned == grids.best_return(tasks)).all()


def test_bad_tasks_and_actions_are_named() -> None:
    grids = FAMILIES["darkroom"]
    world = GridWorld(grids, [0])
    with pytest.raises(ValueError, match="from 0 to 4"):
        world.step(np.array([[5]]))
    with pytest.raises(ValueError, match="from 0 to 4"):
        world.step(np.array([[255]], np.uint8))
    with pytest.raises(ValueError, match="from 0 to 4"):
        world.step(np.array([[0.5]]))
    with pytest.raises(ValueError, match=r"actions of shape \(2, 1\)"):
        world.step(np.zeros((2, 1), int))
    for _ in range(20):
        world.step(np.array([[4]]))
    with pytest.raises(ValueError, match="ended after 20 steps"):
        world.step(np.array([[4]]))
    with pytest.raises(ValueError, match=r"goal \(9, 0\) is outside the 9 x 9 grid"):
        GridEnv(goal=(9, 0))
    with pytest.raises(ValueError, match=r"task=120: 'permuted' has the tasks 0 to 119"):
        GridEnv("darkroom_permuted", permutation=120)
    with pytest.raises(ValueError, match=r"env='maze': must be one of darkroom"):
        family("maze")
    with pytest.raises(ValueError, match="at least one of each"):
        GridWorld(grids, [])


def test_text_picture_shows_the_agent() -> None:
    env = GridEnv(size=3, render_mode="ansi")
    env.reset()
    env.step(0)
    assert env.render() == "...\n...\n.@."
