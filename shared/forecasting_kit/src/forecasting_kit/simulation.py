"""Series made by a rule that is known: for smoke runs, and for questions real data can't answer."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from forecasting_kit.tables import Table, from_frame


def waves(rows: int = 1200, variates: int = 6, *, seed: int = 0) -> Table:
    """Hourly daily and weekly waves of random height and phase, with noise."""
    rng = np.random.default_rng(seed)
    hours = np.arange(rows)[:, None]
    values = np.zeros((rows, variates))
    for period in (24, 168):
        height, phase = rng.uniform(0.5, 2, variates), rng.uniform(0, 1, variates)
        values += height * np.sin(2 * np.pi * (hours / period + phase))
    return _hourly(values + 0.2 * rng.standard_normal(values.shape), "wave")


def leader_and_followers(
    rows: int = 3000,
    followers: int = 7,
    *,
    lag: int = 24,
    noise: float = 0.3,
    seed: int = 0,
) -> Table:
    """One variate that is white noise, and others that repeat it ``lag`` steps later.

    No series can be forecast from its own past: each alone is white noise. A follower's next
    ``lag`` steps stand in the leader's last ``lag`` ones, so that all that can be forecast is seen
    across variates only.

    Args:
        rows: steps.
        followers: variates that follow; each has its own gain, positive or negative.
        lag: steps by which they follow.
        noise: standard deviation added to each follower, whose signal has 1.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal(rows + lag)
    sign = rng.choice([-1.0, 1.0], followers)
    follow = sign * signal[:rows, None] + noise * rng.standard_normal((rows, followers))
    return _hourly(np.column_stack([signal[lag:], follow]), "series")


def _hourly(values: Float[np.ndarray, "rows variates"], name: str) -> Table:
    index = pd.date_range("2024-01-01", periods=len(values), freq="h", name="date")
    columns = [f"{name}_{i}" for i in range(values.shape[1])]
    return from_frame(pd.DataFrame(values, index=index, columns=columns))
