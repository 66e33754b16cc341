"""What a model costs over the size of its input, beside the baseline that its package names."""

import contextlib
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import Benchmark, Paper, atomic_path, growth_exponent
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from formers.records import Record

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

LEAST_ROUNDS = 3
BUDGET_SECONDS = 30.0
"""A size whose rounds take longer than this gets fewer of them, but ``LEAST_ROUNDS``."""
SAMPLE_SECONDS = 0.01
"""Calls shorter than this are timed several at once."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """How a model is run."""

    variant: str
    batch: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    """Other than float32: under autocast."""
    compile: bool = False
    backward: bool = False


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models of a race."""

    name: str
    build: Callable[[], nn.Module]


def configuration(paper: Paper, variant: str) -> Any:
    """The variant as it is raced."""
    benchmark, _ = _benchmark(paper)
    return replace(paper.variants[variant], **benchmark.changes)


def sides(paper: Paper, variant: str) -> list[Side]:
    """The paper's model, and the baseline if the package names one."""
    benchmark, _ = _benchmark(paper)
    config = configuration(paper, variant)
    found = [Side(name=variant, build=lambda: paper.build(config))]
    if (baseline := benchmark.baseline) is not None:
        name = benchmark.baseline_name or "baseline"
        found.append(Side(name=name, build=lambda: baseline(config)))
    return found


def bench(
    paper: Paper,
    how: Circumstances,
    sizes: Iterable[int],
    *,
    entry: EntryPoint,
    rounds: int = 15,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda steps, description: steps,
) -> Record:
    """Latency, throughput, memory and FLOPs of each size, and how they grow.

    The two sides run in turn in one process; the speedup is the median of the pairwise ratios.
    Memory is the growth from after set-up to the peak: CUDA's allocator tells it, elsewhere
    (on Linux) the resident set of a fresh process.

    Args:
        paper: the paper.
        how: variant, batch, device and so on.
        sizes: of the input, along the benchmark's axis.
        entry: where a fresh process finds the paper.
        rounds: of timing, per size.
        progress: wraps the sizes in a progress bar.

    Raises:
        ValueError: the package names no benchmark, or its model takes no such size.
    """
    benchmark, _ = _benchmark(paper)
    racers = sides(paper, how.variant)
    peak = matmul_rate(how)
    measured: list[list[Record]] = [[] for _ in racers]
    speedups: list[Record] = []
    for size in progress(sorted(sizes), "sizes"):
        timings = _race([_step(paper, side, how, size) for side in racers], how, rounds)
        for side, seconds, found in zip(racers, timings, measured, strict=True):
            latency = statistics.median(seconds)
            flops = _flops(paper, side, how, size)
            found.append(
                {
                    "size": size,
                    "latency": latency,
                    "throughput": how.batch / latency,
                    "flops": flops,
                    "matmul_share": flops / latency / peak,
                }
            )
        if len(timings) > 1:
            ratios = sorted(b / a for a, b in zip(*timings, strict=True))
            speedups.append(
                {
                    "size": size,
                    "median": statistics.median(ratios),
                    "least": ratios[0],
                    "most": ratios[-1],
                }
            )
    weighed = [(side, point) for side, found in enumerate(measured) for point in found]
    peaks = _memory(paper, entry, how, [(side, point["size"]) for side, point in weighed])
    for (_, point), memory in zip(weighed, peaks, strict=True):
        point["memory"] = memory
    return {
        **asdict(how),
        "axis": benchmark.axis,
        "matmul_rate": peak,
        "sides": [
            {"name": side.name, "points": points, "growth": _growth(points)}
            for side, points in zip(racers, measured, strict=True)
        ],
        "speedup": speedups,
    }


def matmul_rate(how: Circumstances) -> float:
    """FLOP/s of a large square matrix product on this device in this precision."""
    device = torch.device(how.device)
    n = 1536 if device.type == "cpu" else 8192
    a = torch.ones(n, n, device=device, dtype=DTYPES[how.dtype])
    seconds = _race([lambda: a @ a], how, 7)[0]
    return 2 * n**3 / statistics.median(seconds)


def plot(record: Record, path: Path) -> Path:
    """Latency and memory over the size, both sides, on logarithmic axes."""
    from matplotlib.figure import Figure

    quantities = [("latency", "latency, ms", 1e3), ("memory", "memory above set-up, MiB", 2**-20)]
    sides = record["sides"]
    known = [q for q in quantities if any(_values(side["points"], q[0]) for side in sides)]
    figure = Figure(figsize=(4.2 * len(known), 3.4), layout="constrained")
    for axes, (name, label, unit) in zip(
        figure.subplots(1, len(known), squeeze=False)[0], known, strict=True
    ):
        for side in sides:
            points = [(p["size"], p[name] * unit) for p in side["points"] if p[name]]
            growth = side["growth"].get(name)
            slope = "" if growth is None else f": exponent {growth:.2f}"
            axes.plot(*zip(*points, strict=True), "o-", label=side["name"] + slope)
        axes.set(xlabel=record["axis"], ylabel=label, xscale="log", yscale="log")
        axes.set_xticks(sizes := [p["size"] for p in sides[0]["points"]], map(str, sizes))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}
        axes.legend(frameon=False, fontsize="small", **below)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=150)
    return path


def _benchmark(paper: Paper) -> tuple[Benchmark, Callable[[Any, int | None, int], Any]]:
    if paper.benchmark is None or paper.inputs is None:
        raise ValueError(f"{paper.slug} names no benchmark")
    return paper.benchmark, paper.inputs


def _step(paper: Paper, side: Side, how: Circumstances, size: int) -> Callable[[], Any]:
    """Builds a model and its input; the returned call runs it once."""
    _, make_inputs = _benchmark(paper)
    torch.manual_seed(0)
    with torch.device(how.device):
        model = side.build().train(how.backward)
        inputs = make_inputs(configuration(paper, how.variant), size, how.batch)
    call = torch.compile(model) if how.compile else model
    kind = torch.device(how.device).type

    def precision() -> contextlib.AbstractContextManager[Any]:
        if how.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(kind, DTYPES[how.dtype])

    def forward() -> Any:
        with torch.inference_mode(), precision():
            return call(**inputs)

    def forward_backward() -> Any:
        with precision():
            outputs = call(**inputs)
        leaves = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.requires_grad]
        torch.stack([x.float().mean() for x in leaves]).sum().backward()
        model.zero_grad()

    return forward_backward if how.backward else forward


def _race(steps: list[Callable[[], Any]], how: Circumstances, rounds: int) -> list[list[float]]:
    """Seconds per call of each step and round, the steps in turn."""
    synchronize = _synchronizer(how.device)

    def seconds(step: Callable[[], Any], calls: int) -> float:
        synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            step()
        synchronize()
        return (time.perf_counter() - begin) / calls

    first = [seconds(step, 1) for step in steps]
    calls = [  # the first call also warms up: only a long one tells how many make a sample
        1 if warm > 10 * SAMPLE_SECONDS else max(1, math.ceil(SAMPLE_SECONDS / seconds(step, 1)))
        for step, warm in zip(steps, first, strict=True)
    ]
    taken: list[list[float]] = [[] for _ in steps]
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() - begin > BUDGET_SECONDS:
            break
        for step, count, record in zip(steps, calls, taken, strict=True):
            record.append(seconds(step, count))
    return taken


def _synchronizer(device: str) -> Callable[[], None]:
    if torch.device(device).type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(device)


def _flops(paper: Paper, side: Side, how: Circumstances, size: int) -> int:
    """Of one call, counted on the meta device."""
    step = _step(paper, side, replace(how, device="meta", dtype="float32", compile=False), size)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def _growth(points: list[Record]) -> Record:
    if len(points) < 2:
        return {}
    sizes = [float(point["size"]) for point in points]
    series = {name: _values(points, name) for name in ("latency", "memory", "flops")}
    return {n: growth_exponent(sizes, v) for n, v in series.items() if len(v) == len(sizes)}


def _values(points: list[Record], name: str) -> list[float]:
    return [float(point[name]) for point in points if point[name]]


def _memory(
    paper: Paper, entry: EntryPoint, how: Circumstances, runs: list[tuple[int, int]]
) -> list[int | None]:
    """Bytes above set-up at the peak of each (side, size); ``None`` where the system is silent."""
    if torch.device(how.device).type == "cuda":
        return [_cuda_memory(paper, how, side, size) for side, size in runs]
    if torch.device(how.device).type != "cpu" or not Path("/proc/self/clear_refs").exists():
        return [None] * len(runs)
    task = {"entry": entry.value, "how": asdict(how), "runs": runs}
    done = subprocess.run(
        [sys.executable, "-m", "formers.bench", json.dumps(task)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        raise RuntimeError(f"weighing {entry.name} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _cuda_memory(paper: Paper, how: Circumstances, side: int, size: int) -> int:
    step = _step(paper, sides(paper, how.variant)[side], how, size)
    step()
    torch.cuda.synchronize(how.device)
    torch.cuda.reset_peak_memory_stats(how.device)
    start = torch.cuda.memory_allocated(how.device)
    step()
    torch.cuda.synchronize(how.device)
    return torch.cuda.max_memory_allocated(how.device) - start


def _weigh(entry: str, how: Circumstances, side: int, size: int) -> int:
    """Growth of this process's resident set over calls until its peak stands, in bytes."""
    paper = EntryPoint("", entry, "").load()
    _start_libraries()
    step = _step(paper, sides(paper, how.variant)[side], how, size)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of imports and set-up
    start = _resident("VmRSS")
    grown = 0
    for _ in range(3):
        step()
        before, grown = grown, _resident("VmHWM") - start
        if before and grown <= 1.01 * before:
            break
    return grown


def _start_libraries() -> None:
    """Have thread pools and kernels' scratch space allocated before anything is weighed."""
    x = torch.ones(1, 8, 64, 64)
    F.conv2d(x, torch.ones(8, 8, 3, 3))
    F.scaled_dot_product_attention(x, x, x)
    F.gelu(F.linear(x, torch.ones(64, 64)))


def _resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak since the last reset) of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def _main() -> None:
    """Weigh each side and size in a fork of its own: no threads run yet that a fork would break."""
    task = json.loads(sys.argv[1])
    how = Circumstances(**task["how"])
    EntryPoint("", task["entry"], "").load()  # once, rather than in each fork
    arguments = [(task["entry"], how, side, size) for side, size in task["runs"]]
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        print(json.dumps(pool.starmap(_weigh, arguments, chunksize=1)))


if __name__ == "__main__":
    _main()
