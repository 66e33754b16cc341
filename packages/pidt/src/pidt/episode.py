"""One restoration, step by step: rewards, ends, and the record of what was done."""

from typing import NamedTuple

import numpy as np

from pidt.feeder import Array
from pidt.problem import Restoration, State


class Step(NamedTuple):
    """One action and what came of it."""

    switch: int | None
    """Number of the line, ``None`` for stop."""
    feasible: bool
    reward: float
    restored_mw: float
    """Weighted load that is on afterwards."""
    v_min: float
    """Lowest voltage of a live bus, per unit."""
    sources: tuple[complex, ...]
    """What each source gives, MW + j Mvar."""
    why: str = ""
    """Why a close was refused."""


class Episode:
    """Plays a :class:`~pidt.problem.Restoration`.

    The reward of a feasible close is the weighted share of the feeder's load that it picks up; any
    other close is rolled back and costs the penalty. It ends with *stop*, or when no switch is
    feasible any more; the horizon truncates it.
    """

    def __init__(self, problem: Restoration) -> None:
        self.problem = problem
        self.stop = len(problem.switches)
        self.state: State = problem.start
        self.steps: list[Step] = []
        self.terminated = self.truncated = False
        self._mask: Array | None = None

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated

    @property
    def mask(self) -> Array:
        """The physics mask: the feasible actions of the current state; stop is always one."""
        if self._mask is None:
            self._mask = self.problem.feasible(self.state)
        return self._mask

    def step(self, action: int) -> float:
        """Take ``action``, a position in the list of switches or ``stop``; returns the reward.

        Raises:
            ValueError: for an action that does not exist, or when the episode has ended.
        """
        if self.done:
            raise ValueError("the episode has ended: reset it before the next step")
        if not 0 <= action <= self.stop:
            raise ValueError(f"action={action}: must be 0 to {self.stop}, which is stop")
        problem, reward, why = self.problem, 0.0, ""
        feasible = bool(self.mask[action])
        if action == self.stop:
            self.terminated = True
        elif feasible:
            before = problem.restored(self.state)
            self.state, self._mask = problem.close(self.state, action), None
            gained = problem.restored(self.state) - before
            reward = gained / problem.total_mw if problem.total_mw else 0.0
        else:
            reward, why = -problem.penalty, self._why(action)
        self.terminated |= not self.mask[:-1].any()
        islands = problem.islands(self.state)
        self.steps.append(
            Step(
                None if action == self.stop else problem.switches[action] + 1,
                feasible,
                reward,
                problem.restored(self.state),
                float(min(island.voltage.min() for island in islands)),
                tuple(island.power for island in islands),
                why,
            )
        )
        self.truncated = len(self.steps) >= problem.horizon
        return reward

    def _why(self, action: int) -> str:
        problem = self.problem
        if problem.switches[action] in problem.damaged:
            return "the line is damaged"
        if not problem.valid(self.state)[action]:
            return "it does not join a live cell and a dead one"
        if problem.overload:
            return problem.overload
        islands = problem.islands(problem.close(self.state, action))
        return next(island.broken for island in islands if island.broken)

    @property
    def returned(self) -> float:
        """The sum of the rewards."""
        return float(sum(step.reward for step in self.steps))

    @property
    def restored_mw(self) -> float:
        return self.problem.restored(self.state)

    @property
    def refused(self) -> int:
        """Closes that were not feasible."""
        return sum(not step.feasible for step in self.steps)


def source_table(problem: Restoration, state: State) -> Array:
    """Per source P (MW), Q (Mvar) and the active loss (MW) of its island."""
    islands = problem.islands(state)
    return np.array([(i.power.real, i.power.imag, i.loss) for i in islands])
