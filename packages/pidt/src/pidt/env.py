"""Restoration as gymnasium environments; importing this module registers them.

``gymnasium.make("pidt/Restoration33-v0")`` is the reference outage,
``"pidt/RandomOutages33-v0"`` a new outage each episode, ``"pidt/UncertainHorizon33-v0"`` also with
a horizon that is drawn, and ``"pidt/Restoration13-v0"`` a small feeder.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from pidt.drawing import island_lines
from pidt.episode import Episode, source_table
from pidt.feeder import Array, Feeder, ieee13
from pidt.problem import Restoration, Source
from pidt.scenarios import reference, reference_scenarios

Sampler = Callable[[np.random.Generator], Restoration]
"""Draws the problem of an episode."""


class RestorationEnv(gymnasium.Env):
    """One action closes a switch, the last one stops; see :class:`~pidt.episode.Episode`.

    ``info`` has the masks ``valid`` and ``feasible``, ``restored_mw``, and ``sources``: P (MW),
    Q (Mvar) and active loss (MW) of each.

    Args:
        feeder: the network.
        switches: as in :class:`~pidt.problem.Restoration`; so are the keyword arguments.
        sources: likewise.
        sampler: draws the problem of each episode instead; all of the same sizes.
        context: the scenario is part of the observation.
        feature: the physics mask is part of the observation.
        render_mode: ``"ansi"`` for `render` to return a drawing of the islands.
        **limits: the rest of the problem.
    """

    metadata = {  # noqa: RUF012 -- as gymnasium declares it
        "render_modes": ["ansi"],
        "render_fps": 1,
    }

    def __init__(
        self,
        feeder: Feeder | None = None,
        switches: Sequence[int] | None = None,
        sources: Mapping[int, Source | Mapping[str, float]] | None = None,
        *,
        sampler: Sampler | None = None,
        context: bool = False,
        feature: bool = False,
        render_mode: str | None = None,
        **limits: Any,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode={render_mode!r}: must be None or 'ansi'")
        if feeder is not None:
            sampler = constant(Restoration(feeder, switches, sources, **limits))
        if sampler is None:
            raise ValueError("give a feeder with its sources, or a sampler")
        self.sampler, self.context, self.feature = sampler, context, feature
        self.render_mode = render_mode
        self.episode = Episode(sampler(np.random.default_rng(0)))
        size = len(self._observation())
        self.observation_space = spaces.Box(-1.0, 2.0, (size,), np.float32)
        self.action_space = spaces.Discrete(len(self.problem.switches) + 1)

    @property
    def problem(self) -> Restoration:
        return self.episode.problem

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an outage; ``options={"problem": Restoration}`` sets a certain one."""
        super().reset(seed=seed)
        given = (options or {}).get("problem")
        self.episode = Episode(given if given is not None else self.sampler(self.np_random))
        return self._observation(), self._info()

    def step(self, action: int | np.integer) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        reward = self.episode.step(int(action))
        ends = self.episode.terminated, self.episode.truncated
        return self._observation(), reward, *ends, self._info()

    def action_masks(self) -> Array:
        """The physics mask, under the name that sb3-contrib's MaskablePPO asks for."""
        return self.episode.mask.copy()

    def render(self) -> str | None:
        if self.render_mode is None:
            return None
        return "\n".join(island_lines(self.problem, self.episode.state))

    def _observation(self) -> Array:
        parts = [self.problem.observe(self.episode.state)]
        parts += [self.problem.context] if self.context else []
        parts += [self.episode.mask] if self.feature else []
        return np.concatenate(parts).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        state = self.episode.state
        return {
            "valid": self.problem.valid(state),
            "feasible": self.action_masks(),
            "restored_mw": self.problem.restored(state),
            "sources": source_table(self.problem, state),
        }


def constant(problem: Restoration) -> Sampler:
    """Draws the same problem each time."""
    return lambda generator: problem


def _reference(**options: Any) -> RestorationEnv:
    return RestorationEnv(sampler=constant(reference()), **options)


def _random(horizon: tuple[int, int] | None = None, **options: Any) -> RestorationEnv:
    outages = reference_scenarios(horizon=horizon)
    return RestorationEnv(sampler=outages.draw, **{"context": True, **options})


def _small(**options: Any) -> RestorationEnv:
    sources = {6: {"p_max_mw": 2.0, "q_max_mvar": 1.5}}
    return RestorationEnv(ieee13(), None, sources, v_min=0.9, v_max=1.1, **options)


gymnasium.register("pidt/Restoration33-v0", _reference)
gymnasium.register("pidt/RandomOutages33-v0", _random)
gymnasium.register("pidt/UncertainHorizon33-v0", _random, kwargs={"horizon": (3, 15)})
gymnasium.register("pidt/Restoration13-v0", _small)
