"""The exact optimum, by visiting every set of switches that feasible moves can close."""

from dataclasses import dataclass

from pidt.problem import Restoration, State

MOST_STATES = 200_000


@dataclass(frozen=True)
class Optimum:
    """The best restoration, and what every visited state can still reach."""

    restored_mw: float
    """Weighted load that is on at the end."""
    plan: tuple[int, ...]
    """Actions from the start to it."""
    states: int
    """Sets of closed switches visited."""
    value: dict[frozenset[int], float]
    """Closed switches -> the most weighted load reachable from there, MW."""

    def actions(self, problem: Restoration, state: State) -> list[int]:
        """The actions that keep the optimum of ``state`` reachable; stop when it is reached."""
        best = self.value[frozenset(state.closed)]
        if problem.restored(state) >= best - 1e-12:
            return [len(problem.switches)]
        return [
            action
            for action in range(len(problem.switches))
            if action not in state.closed
            and self.value.get(frozenset((*state.closed, action)), -1.0) >= best - 1e-12
            and problem.feasible(state)[action]
        ]


def exact_optimum(problem: Restoration, *, most_states: int = MOST_STATES) -> Optimum:
    """The most weighted load that any order of feasible moves can restore.

    All states with as many closed switches are solved together.

    Raises:
        ValueError: when more than ``most_states`` sets of switches are reachable.
    """
    level = {frozenset[int](): problem.start}
    seen: dict[frozenset[int], State] = {}
    moves: dict[frozenset[int], list[frozenset[int]]] = {}
    for _ in range(problem.horizon + 1):
        seen |= level
        if len(seen) > most_states:
            raise ValueError(
                f"more than {most_states} states are reachable: the exact search is for "
                "small feeders"
            )
        following: dict[frozenset[int], State] = {}
        masks = problem.feasible_many(list(level.values()))
        for (closed, state), mask in zip(level.items(), masks, strict=True):
            actions = [int(action) for action in mask[:-1].nonzero()[0]]
            moves[closed] = [closed | {action} for action in actions]
            for action in actions:
                key = closed | {action}
                if key not in seen and key not in following:
                    following[key] = problem.close(state, action)
        level = following
        if not level:
            break
    value: dict[frozenset[int], float] = {}
    for closed, state in reversed(seen.items()):  # levels come in order of size
        reached = [value[after] for after in moves[closed] if after in value]
        value[closed] = max([problem.restored(state), *reached])
    found = Optimum(value[frozenset()], (), len(seen), value)
    state, plan = problem.start, []
    while (action := found.actions(problem, state)[0]) != len(problem.switches):
        plan.append(action)
        state = problem.close(state, action)
    return Optimum(found.restored_mw, tuple(plan), len(seen), value)
