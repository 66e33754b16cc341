"""``lhf collect | score | filter | train | evaluate | import``."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from attention_core import needs_extra, one_line_errors


def main() -> None:
    """Run the command line; it needs the extra ``data``, and ``train`` the extra ``train``."""
    with needs_extra("lhf", "data"):
        app = _app()
    app()


def _app() -> Any:
    import typer

    app = typer.Typer(
        help="LHF: learning histories for in-context RL, collected, scored, filtered, learned.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    File = Annotated[Path, typer.Argument(help="HDF5 file of histories.")]
    Env = Annotated[
        str, typer.Option(help="darkroom, darkroom_permuted, darkroom_large, key_to_door.")
    ]
    Named = Annotated[str | None, typer.Option(help="The family, where the file does not tell.")]
    Size = Annotated[int | None, typer.Option(help="Another grid.")]
    Horizon = Annotated[int | None, typer.Option(help="Another length of the episode.")]
    Best = Annotated[float | None, typer.Option(help="R_max, where the file is not of grids.")]
    Plot = Annotated[Path | None, typer.Option(help="Write a picture here.")]
    Stability = Annotated[float, typer.Option(help="Weight of stability (λ).")]
    Sampling = Annotated[str, typer.Option(help="linear or softmax.")]
    Temperature = Annotated[float, typer.Option(help="Of softmax (α).")]
    AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

    @app.command()
    def collect(
        out: Annotated[
            Path, typer.Option(help="HDF5 file; called again after a kill, it goes on.")
        ],
        env: Annotated[
            str, typer.Option(help="A family of grids, or a Meta-World task such as reach-v3.")
        ] = "darkroom",
        source: Annotated[
            str,
            typer.Option(
                help="ppo (all tasks at once), sb3_ppo, q_learning, random; Meta-World: ppo, sac."
            ),
        ] = "ppo",
        histories: Annotated[int, typer.Option(help="Per task.")] = 100,
        steps: Annotated[int, typer.Option(help="Of each history.")] = 1000,
        tasks: Annotated[str, typer.Option(help="train, test, all, or numbers: 0,4,17.")] = "train",
        size: Size = None,
        horizon: Horizon = None,
        processes: Annotated[int, typer.Option(help="That work at once.")] = 1,
        ray: Annotated[bool, typer.Option("--ray", help="Spread over a Ray cluster.")] = False,
        noise: Annotated[
            float, typer.Option(help="Share of histories to replace by random agents'.")
        ] = 0.0,
        seed: int = 0,
        plot: Plot = None,
    ) -> None:
        """Write learning histories of every task."""
        with one_line_errors():
            from lhf.collect import collect as run
            from lhf.grids import FAMILIES, family
            from lhf.histories import read_histories

            if env not in FAMILIES and env.endswith(("-v2", "-v3")):
                from lhf import metaworld

                metaworld.collect(
                    env, out, source=source, histories=histories, steps=steps, seed=seed,
                    progress=_progress,
                )  # fmt: skip
            else:
                grids = family(env, size=size, horizon=horizon)
                order = _order(env, grids, tasks, source, histories, steps, seed, processes)
                run(order, out, processes=processes, ray=ray, progress=_progress)
                if noise:
                    _add_noise(out, noise, seed)
            if plot is not None:
                from lhf.plots import plot_histories

                plot_histories(plot, {env: read_histories(out)})
        print(f"histories: {out}")

    @app.command()
    def score(
        file: File,
        stability: Stability = 1.0,
        sampling: Sampling = "linear",
        temperature: Temperature = 1.0,
        env: Named = None,
        horizon: Horizon = None,
        best: Best = None,
        plot: Plot = None,
        as_json: AsJson = False,
    ) -> None:
        """Score every history: Improvement, Stability, U and its chance to be kept."""
        with one_line_errors():
            from lhf.filtering import score_histories, scores_to_json
            from lhf.histories import read_histories

            settings: dict[str, Any] = {
                "stability": stability, "sampling": sampling, "temperature": temperature,
            }  # fmt: skip
            scores = score_histories(
                read_histories(file, env=env, horizon=horizon, best=best), **settings
            )
            if plot is not None:
                from lhf.plots import plot_scores

                plot_scores(plot, scores)
        if as_json:
            print(json.dumps(scores_to_json(scores)))
        else:
            _print_scores(scores)

    @app.command("filter")
    def filter_file(
        file: File,
        out: Annotated[Path, typer.Option(help="HDF5 file of the filtered histories.")],
        stability: Stability = 1.0,
        sampling: Sampling = "linear",
        temperature: Temperature = 1.0,
        seed: int = 0,
        env: Named = None,
        horizon: Horizon = None,
        best: Best = None,
        report: Annotated[
            Path | None, typer.Option(help="Write scores and choice as JSON.")
        ] = None,
        plot: Plot = None,
    ) -> None:
        """Write the same number of histories, resampled by their scores (Algorithm 1)."""
        with one_line_errors():
            from attention_core import write_text

            from lhf.filtering import filter_histories
            from lhf.histories import read_histories, write_histories

            histories = read_histories(file, env=env, horizon=horizon, best=best)
            filtered, found = filter_histories(
                histories, stability=stability, sampling=sampling, temperature=temperature,
                seed=seed,
            )  # fmt: skip
            write_histories(out, filtered)
            if report is not None:
                write_text(report, json.dumps(found.to_json()))
            if plot is not None:
                from lhf.plots import plot_histories

                plot_histories(plot, {"all": histories, "filtered": filtered})
        print(f"{len(filtered)} histories, {found.distinct:.0%} of the originals: {out}")

    @app.command()
    def train(
        data: Annotated[Path, typer.Option(help="HDF5 file of histories.")],
        out: Annotated[Path, typer.Option(help="Folder of the run; called again, it goes on.")],
        backbone: Annotated[str, typer.Option(help="ad, dpt, dicp_ad or dicp_dpt.")] = "ad",
        variant: Annotated[
            str | None, typer.Option(help="A published one instead: ad_darkroom, ...")
        ] = None,
        transitions: Annotated[int | None, typer.Option(help="Window.")] = None,
        light: Annotated[bool, typer.Option("--light", help="The paper's small sizes.")] = False,
        filtering: Annotated[
            str, typer.Option("--filter", help="none, copies or weights, before training.")
        ] = "none",
        steps: Annotated[int, typer.Option(help="Updates.")] = 50_000,
        batch_size: int = 512,
        lr: Annotated[float, typer.Option(help="1e-2 is for large batches; else 1e-3.")] = 1e-2,
        query: Annotated[str, typer.Option(help="DPT's: next, history or grid.")] = "next",
        episodes: Annotated[int, typer.Option(help="In context, per validation.")] = 20,
        accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu.")] = "auto",
        seed: int = 0,
    ) -> None:
        """Train a learner; OUT/model is what evaluate takes."""
        with one_line_errors():
            _train(
                data, out, backbone, variant, transitions, light, filtering, steps, batch_size, lr,
                query, episodes, accelerator, seed,
            )  # fmt: skip
        print(f"model: {out / 'model'}")

    @app.command()
    def evaluate(
        model: Annotated[Path, typer.Argument(help="Folder that train or import wrote.")],
        env: Env = "darkroom",
        episodes: int = 50,
        tasks: Annotated[str, typer.Option(help="train, test, all, or numbers: 0,4,17.")] = "test",
        copies: Annotated[int, typer.Option(help="Runs per task.")] = 1,
        context: Annotated[
            str, typer.Option(help="window (exact), or rolling: kept keys and values, fast.")
        ] = "window",
        beam: Annotated[int, typer.Option(help="Of DICP's planner; 0 for none.")] = 0,
        greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest actions.")] = False,
        size: Size = None,
        horizon: Horizon = None,
        device: str = "cpu",
        seed: int = 0,
        plot: Plot = None,
        out: Annotated[Path | None, typer.Option(help="Write the returns as JSON.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Let a learner meet tasks and print how its return grows in context."""
        with one_line_errors():
            import torch
            from attention_core import write_text

            from lhf.grids import GridWorld, family
            from lhf.incontext import evaluate_in_context
            from lhf.model import ContinuousAD, load

            learner = load(model).to(device)
            if isinstance(learner, ContinuousAD):
                raise ValueError(f"{model} is of continuous control: see lhf.metaworld.Tasks")
            grids = family(env, size=size or learner.config.size, horizon=horizon)
            if grids.size > learner.config.size:
                raise ValueError(f"size={grids.size}: the learner knows {learner.config.size}")
            world = GridWorld(grids, _tasks(grids, tasks), copies)
            found = evaluate_in_context(
                learner,
                world,
                episodes,
                context=context,
                beam=beam,
                sample=not greedy,
                generator=torch.Generator(device).manual_seed(seed),
                progress=_progress,
            )
            record = {"curve": found.curve.tolist(), "returns": found.returns.tolist()}
            if out is not None:
                write_text(out, json.dumps(record))
            if plot is not None:
                from lhf.plots import plot_curves

                plot_curves(plot, {model.parent.name: found.curve})
        curve = found.curve
        if as_json:
            print(json.dumps(record))
        else:
            print(
                f"return / best over {len(found.returns)} runs: mean {curve.mean():.3f}, "
                f"first {curve[0]:.3f}, last 10 episodes {curve[-10:].mean():.3f}"
            )

    @app.command("import")
    def import_weights(
        checkpoint: Annotated[Path, typer.Argument(help="ckpt-STEP.pt of the DICP code.")],
        out: Annotated[Path, typer.Option(help="Folder to write.")],
        transitions: Annotated[int | None, typer.Option(help="Window; the variant's.")] = None,
        heads: Annotated[
            int | None, typer.Option(help="Of attention; a head per 8 channels.")
        ] = None,
    ) -> None:
        """Turn a checkpoint of the DICP code into a folder that evaluate takes."""
        with one_line_errors():
            from attention_core import read_checkpoint

            from lhf.model import LEARNERS
            from lhf.official import backbone, rename_state

            state = read_checkpoint(checkpoint)
            told = {"transitions": transitions, "heads": heads}
            settings = {name: value for name, value in told.items() if value is not None}
            learner = LEARNERS[backbone(rename_state(state))]
            learner.from_official(state, **settings).save_pretrained(out)
        print(out)

    return app


def _order(
    env: str, grids: Any, tasks: str, source: str, histories: int, steps: int, seed: int,
    processes: int,
) -> Any:  # fmt: skip
    from lhf.collect import Order

    chosen = _tasks(grids, tasks)
    part = min(37, -(-len(chosen) // max(1, processes)))
    return Order(
        env=env, family=grids, tasks=tuple(chosen), source=source, histories=histories,
        steps=steps, seed=seed, part=part,
    )  # fmt: skip


def _tasks(grids: Any, tasks: str) -> list[int]:
    train, test = grids.split()
    named = {"train": train, "test": test, "all": sorted(train + test)}
    if tasks in named:
        return named[tasks]
    try:
        chosen = [int(part) for part in tasks.split(",")]
    except ValueError:
        raise ValueError(f"tasks={tasks!r}: must be train, test, all or numbers") from None
    grids.require_tasks(chosen)
    return chosen


def _add_noise(file: Path, share: float, seed: int) -> None:
    from dataclasses import replace

    from lhf.histories import read_histories, write_histories
    from lhf.sources import random_agents

    made = read_histories(file)
    grids = made.grid
    if grids is None:
        raise ValueError("noise is for grids")
    first = next(iter(made.tasks.values()))
    noise = random_agents(
        grids, list(made.tasks), histories=len(first), steps=first.steps, seed=seed + 1
    )
    mixed = made.mix(replace(made, tasks=noise), share, seed)
    write_histories(file, replace(mixed, source=f"{made.source}, {share:.0%} random"))


def _train(
    data: Path, out: Path, backbone: str, variant: str | None, transitions: int | None,
    light: bool, filtering: str, steps: int, batch_size: int, lr: float, query: str,
    episodes: int, accelerator: str, seed: int,
) -> None:  # fmt: skip
    try:
        from lhf import train
    except ModuleNotFoundError as missing:
        raise ValueError(
            f"training needs {missing.name}: install formers-lhf with its extra [train]"
        ) from missing
    from lhf.histories import read_histories

    histories = read_histories(data)
    changes: dict[str, Any] = {}
    if variant is None:
        known = ("ad", "dpt", "dicp_ad", "dicp_dpt")
        if backbone not in known:
            raise ValueError(f"backbone={backbone!r}: must be one of {', '.join(known)}")
        if histories.grid is None:
            raise ValueError(f"{data} is not of grids: name a variant")
        variant = f"{backbone}_darkroom"
        changes = {"size": histories.grid.size, "transitions": 4 * histories.horizon}
        if light:
            changes |= {"layers": 2, "heads": 2, "dim": 16, "inner": 64}
    if transitions is not None:
        changes["transitions"] = transitions
    epochs = min(10, steps)
    options = {
        "run": str(out),
        "seed_everything": seed,
        "model.variant": variant,
        "model.changes": json.dumps(changes),
        "model.lr": lr,
        "model.episodes": episodes,
        "data.variant": variant,
        "data.changes": json.dumps(changes),
        "data.file": str(data),
        "data.filter": filtering,
        "data.query": query,
        "data.batch_size": batch_size,
        "data.steps_per_epoch": steps // epochs,
        "trainer.max_epochs": epochs,
        "trainer.gradient_clip_val": 1.0,
        "trainer.accelerator": accelerator,
    }
    arguments = ["fit", *(f"--{name}={value}" for name, value in options.items())]
    if (out / "checkpoints" / "last.ckpt").exists():
        arguments.append("--ckpt_path=last")
    train.main(arguments)


def _print_scores(scores: dict[int, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "histories", "improvement", "stability", "U", "P")
    for task, found in scores.items():
        table.add_row(
            str(task),
            str(len(found.metric)),
            *(
                f"{value.mean():.3f} ({value.min():.3f} to {value.max():.3f})"
                for value in (found.improvement, found.stability, found.metric)
            ),
            f"{found.probability.mean():.3f}",
        )
    Console().print(table)


def _progress(items: Iterable[Any], text: str) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    return track(items, text, console=Console(stderr=True))
