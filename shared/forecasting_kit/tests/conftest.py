from dataclasses import dataclass

import forecasting_kit
import numpy as np
import pandas as pd
import pytest
import torch
from attention_core import PaperModel, require_positive
from torch import nn


@dataclass(frozen=True, kw_only=True)
class SmallConfig:
    lookback: int = 24
    horizon: int = 8
    dim: int = 16

    def __post_init__(self) -> None:
        require_positive(self, "lookback", "horizon", "dim")


class Small(PaperModel):
    """A network of two layers per variate that also looks at the mean over variates."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.inner = nn.Linear(2 * config.lookback, config.dim)
        self.drop = nn.Dropout(0.1)
        self.outer = nn.Linear(config.dim, config.horizon)

    def forward(self, x, marks=None):
        level = x[:, -1:]
        own = (x - level).mT
        both = torch.cat([own, own.mean(1, keepdim=True).expand_as(own)], -1)
        return self.outer(self.drop(torch.relu(self.inner(both)))).mT + level


class SmallForecaster(forecasting_kit.Forecaster):
    model_class = Small


def make_waves(rows=400, variates=3, freq="h", seed=0):
    random = np.random.default_rng(seed)
    time = np.arange(rows)[:, None]
    phase = np.arange(variates)
    values = np.sin(2 * np.pi * time / 24 + phase) * (phase + 1) + 10 * phase
    values = values + 0.1 * random.standard_normal((rows, variates))
    index = pd.date_range("2020-01-01", periods=rows, freq=freq)
    return pd.DataFrame(values, index=index, columns=[f"load{i}" for i in range(variates)])


@pytest.fixture(scope="session")
def waves():
    """Makes wide frames of noisy daily waves, a level and a size for each column."""
    return make_waves


@pytest.fixture
def frame():
    return make_waves()


@pytest.fixture(scope="session")
def small():
    """The forecaster class of a small network."""
    return SmallForecaster


@pytest.fixture(scope="session")
def trained():
    return SmallForecaster(24, 8).fit(make_waves(), epochs=3, lr=1e-2, progress=False)
