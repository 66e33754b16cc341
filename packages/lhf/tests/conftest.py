import pytest
import torch
from lhf import GridFamily, Histories
from lhf.sources import q_learning, random_agents

SMALL = GridFamily(size=5, horizon=10, train_share=0.8)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def small() -> GridFamily:
    return SMALL


@pytest.fixture(scope="session")
def noisy() -> Histories:
    """Six tasks of the small darkroom: ten Q-learners each, three of them random agents instead."""
    size = {"histories": 10, "steps": 200}
    tasks = SMALL.split()[0][:6]
    learned = Histories("darkroom", q_learning(SMALL, tasks, **size), 10, SMALL)
    noise = Histories("darkroom", random_agents(SMALL, tasks, **size), 10, SMALL)
    return learned.mix(noise, 0.3)
