"""What any forecaster has to beat: no learning at all, and one linear layer."""

from collections.abc import Mapping

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from pandas.tseries.frequencies import to_offset
from torch import Tensor, nn

from forecasting_kit.evaluation import BLOCK
from forecasting_kit.windows import Batch, Windows

EPS = 1e-5
"""Added to a window's variance, as all compared models do."""
DAY = 24 * 60 * 60 * 10**9
SAMPLES = 500_000
"""About as many series windows enter the least squares of the linear baseline."""


class RepeatLast(nn.Module):
    """The last value, again and again."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(
        self, x: Float[Tensor, "batch lookback v"], marks: Tensor | None = None
    ) -> Float[Tensor, "batch horizon v"]:
        return x[:, -1:].expand(-1, self.horizon, -1)


class SeasonalNaive(nn.Module):
    """The last season, again and again.

    Args:
        horizon: steps to forecast.
        season: steps of a season, such as the 24 of an hourly day.
    """

    def __init__(self, horizon: int, season: int) -> None:
        super().__init__()
        self.horizon, self.season = horizon, season

    def forward(
        self, x: Float[Tensor, "batch lookback v"], marks: Tensor | None = None
    ) -> Float[Tensor, "batch horizon v"]:
        if x.shape[1] < self.season:
            raise ValueError(f"a season of {self.season} steps needs a lookback of that length")
        seasons = -(-self.horizon // self.season)
        last = x[:, -self.season :]
        return repeat(last, "b s v -> b (r s) v", r=seasons)[:, : self.horizon]


class LinearForecaster(nn.Module):
    """RLinear: one Linear(lookback -> horizon) shared by all variates, on normalised windows.

    ``fit`` solves for the weights in closed form, by ridge regression on the windows' squared error
    in scaled space, so that the baseline is exact, quick and has no learning rate to tune.
    """

    def __init__(self, lookback: int, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(lookback, horizon)

    def forward(
        self, x: Float[Tensor, "batch lookback v"], marks: Tensor | None = None
    ) -> Float[Tensor, "batch horizon v"]:
        mean, deviation = _level(x)
        forecast = self.linear(((x - mean) / deviation).mT).mT
        return forecast * deviation + mean

    @classmethod
    def fit(
        cls, windows: Windows, *, ridge: float = 1e-5, samples: int = SAMPLES
    ) -> "LinearForecaster":
        """The baseline with the weights of least error over ``windows``.

        Args:
            windows: to fit to, evenly thinned out to about ``samples`` series windows.
            ridge: weight of the squared norm, relative to the mean diagonal of the Gram matrix.
            samples: how many.
        """
        model = cls(windows.lookback, windows.horizon).to(windows.values.device)
        every = max(1, len(windows) * windows.targets // samples)
        index = torch.arange(0, len(windows), every)
        size = windows.lookback + 1
        gram = torch.zeros(size, size, dtype=torch.float64)
        cross = torch.zeros(size, windows.horizon, dtype=torch.float64)
        for part in index.split(4 * BLOCK):
            inputs, outputs = _equations(windows[part])
            gram += (inputs.T @ inputs).double().cpu()
            cross += (inputs.T @ outputs).double().cpu()
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        solution = torch.linalg.solve(gram, cross).T
        with torch.no_grad():
            model.linear.weight.copy_(solution[:, :-1])
            model.linear.bias.copy_(solution[:, -1])
        return model.eval()


def season_steps(step: str | None) -> int:
    """Steps of a season: of a day, of a week for daily data, of a year for weeks to quarters.

    1 for a step that no such season is a multiple of.
    """
    if step is None:
        return 1
    calendar = {"D": 7, "B": 5, "W": 52, "M": 12, "ME": 12, "MS": 12, "Q": 4, "QE": 4, "QS": 4}
    if (unit := step.split("-")[0]) in calendar:
        return calendar[unit]
    try:
        seasons = DAY / to_offset(step).nanos
    except ValueError:  # a calendar's step has no fixed length
        return 1
    return int(seasons) if seasons >= 1 and seasons == int(seasons) else 1


def baselines(train: Windows, step: str | None) -> Mapping[str, nn.Module]:
    """The baselines by name, fitted to ``train``; a season longer than the lookback is left out."""
    lookback, horizon = train.lookback, train.horizon
    models: dict[str, nn.Module] = {"repeat-last": RepeatLast(horizon)}
    if 1 < (season := season_steps(step)) <= lookback:
        models["seasonal-naive"] = SeasonalNaive(horizon, season)
    models["linear"] = LinearForecaster.fit(train)
    return models


def _level(x: Float[Tensor, "batch lookback v"]) -> tuple[Tensor, Tensor]:
    mean = x.mean(1, keepdim=True)
    return mean, (x.var(1, keepdim=True, correction=0) + EPS).sqrt()


def _equations(batch: Batch) -> tuple[Float[Tensor, "n inputs"], Float[Tensor, "n horizon"]]:
    """Least squares of the scaled error: y - mean = W (x - mean) + bias * deviation."""
    targets = batch.y.shape[-1]
    x = batch.x[..., -targets:]
    mean, deviation = _level(x)
    inputs = torch.cat([x - mean, deviation], 1)
    return rearrange(inputs, "b l v -> (b v) l"), rearrange(batch.y - mean, "b h v -> (b v) h")
