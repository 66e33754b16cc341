"""Collection of histories over processes or machines, in parts that survive a kill."""

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attention_core import require_choice, require_positive

from lhf import ppo, sources
from lhf.grids import GridFamily
from lhf.histories import Histories, History, read_histories, write_histories

SOURCES = ("ppo", "q_learning", "random", "sb3_ppo")
Progress = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to collect."""

    env: str
    family: GridFamily
    tasks: tuple[int, ...]
    source: str = "ppo"
    histories: int = 100
    steps: int = 1000
    seed: int = 0
    part: int = 37
    """Tasks per part: what a process works on, and what a kill costs."""

    def __post_init__(self) -> None:
        require_choice(self, "source", SOURCES)
        require_positive(self, "histories", "steps", "part")
        if not self.tasks:
            raise ValueError("no tasks to collect")
        self.family.require_tasks(self.tasks)

    @property
    def parts(self) -> list[tuple[int, ...]]:
        return [self.tasks[i : i + self.part] for i in range(0, len(self.tasks), self.part)]


def collect(
    order: Order,
    out: str | Path,
    *,
    processes: int = 1,
    ray: bool = False,
    progress: Progress = lambda parts, text: parts,
) -> Path:
    """Collect histories into the file ``out``; called again after a kill, it goes on.

    Parts are written to ``OUT.parts`` and joined at the end, each of them all or nothing.

    Args:
        order: what to collect.
        out: the HDF5 file.
        processes: that work at once, on one thread each.
        ray: spread the parts over a Ray cluster instead (needs the extra ``ray``).
        progress: wraps the finished parts in a progress bar.

    Raises:
        ValueError: when ``OUT.parts`` holds parts of another order.
    """
    out = Path(out)
    folder = out.with_name(out.name + ".parts")
    _claim(folder, order)
    files = [folder / f"{i}.h5" for i in range(len(order.parts))]
    missing = [(order, i, file) for i, file in enumerate(files) if not file.exists()]
    run = _on_ray if ray else _on_processes
    for _ in progress(_counted(run(missing, processes), len(missing)), "parts"):
        pass
    tasks: dict[int, History] = {}
    for file in files:
        tasks |= read_histories(file).tasks
    write_histories(out, _histories(order, {task: tasks[task] for task in sorted(tasks)}))
    shutil.rmtree(folder)
    return out


def collect_part(order: Order, part: int) -> Histories:
    """The histories of one part; what they are does not depend on who collects them."""
    tasks, family = list(order.parts[part]), order.family
    size: dict[str, Any] = {"histories": order.histories, "steps": order.steps}
    if order.source == "sb3_ppo":
        found = {t: sources.stable_baselines(family, t, **size, seed=order.seed) for t in tasks}
    else:
        learn: Any = {
            "ppo": ppo.collect, "q_learning": sources.q_learning, "random": sources.random_agents,
        }[order.source]  # fmt: skip
        found = learn(family, tasks, **size, seed=order.seed * 100_003 + part)
    return _histories(order, found)


def _histories(order: Order, tasks: dict[int, History]) -> Histories:
    return Histories(order.env, tasks, order.family.horizon, order.family, source=order.source)


def _work(job: tuple[Order, int, Path]) -> int:
    import torch

    torch.set_num_threads(1)
    order, part, file = job
    write_histories(file, collect_part(order, part))
    return part


def _on_processes(jobs: Sequence[tuple[Order, int, Path]], processes: int) -> Iterator[int]:
    if processes < 1:
        raise ValueError(f"processes={processes}: must be at least 1")
    if processes == 1 or len(jobs) < 2:
        yield from map(_work, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap_unordered(_work, jobs)


def _on_ray(jobs: Sequence[tuple[Order, int, Path]], processes: int) -> Iterator[int]:
    """The parts come back to this machine, which alone writes."""
    ray = sources.require_extra("ray", "ray")
    if not ray.is_initialized():
        ray.init(num_cpus=processes if processes > 1 else None)
    remote = ray.remote(num_cpus=1)(collect_part)
    waiting = {remote.remote(order, part): (part, file) for order, part, file in jobs}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        part, file = waiting.pop(done)
        write_histories(file, ray.get(done))
        yield part


def _claim(folder: Path, order: Order) -> None:
    name = json.dumps(asdict(order), sort_keys=True)
    mark = hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "order"
    if note.exists() and note.read_text() != mark:
        raise ValueError(f"{folder} holds parts of another collection: remove it or choose another")
    note.write_text(mark)


class _counted:  # noqa: N801 -- an iterator with a length, for progress bars
    def __init__(self, items: Iterator[int], count: int) -> None:
        self.items, self.count = items, count

    def __iter__(self) -> Iterator[int]:
        return self.items

    def __len__(self) -> int:
        return self.count
