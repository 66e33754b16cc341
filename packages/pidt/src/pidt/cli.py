"""``pidt collect | train | evaluate | restore``."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attention_core import needs_extra, one_line_errors

if TYPE_CHECKING:
    from pidt.episode import Episode
    from pidt.policies import Policy
    from pidt.problem import Restoration
    from pidt.scenarios import Scenarios


def main() -> None:
    """Run the command line; it needs the extra ``data``."""
    with needs_extra("pidt", "data"):
        app = _app()
    app()


def _app() -> Any:
    import typer

    app = typer.Typer(
        help="Power restoration on a distribution feeder, switch by switch.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    Network = Annotated[
        str, typer.Argument(help="pandapower JSON, MATPOWER .m, or case33bw or ieee13.")
    ]
    Scenario = Annotated[
        Path | None,
        typer.Option(
            help="JSON: switches, sources, damaged, load_weights, v_min, v_max, penalty, horizon, "
            "places; by default the reference outage of case33bw."
        ),
    ]
    Seed = Annotated[int, typer.Option(help="Of the outages and of whatever is drawn.")]
    Out = Annotated[Path, typer.Option(help="Where to write.")]

    @app.command()
    def collect(
        network: Network,
        out: Out,
        scenario: Scenario = None,
        outages: Annotated[int, typer.Option(help="Random outages around the scenario.")] = 300,
        episodes: Annotated[int, typer.Option(help="Of each outage.")] = 4,
        mixture: Annotated[
            str, typer.Option(help='Policies and their shares: {"optimal": 0.5, "random": 0.5}.')
        ] = "{}",
        spread: Annotated[float, typer.Option(help="Of the sources' limits.")] = 0.2,
        damage: Annotated[int, typer.Option(help="Switches lost in each outage.")] = 1,
        seed: Seed = 0,
    ) -> None:
        """Record restorations: optimal, nearly optimal, greedy, random and reckless ones."""
        with one_line_errors():
            from pidt.trajectories import collect

            drawn = _scenarios(network, scenario, spread, damage).many(outages, seed)
            shares = _json(mixture)
            data = collect(
                _bar(drawn, "collecting", outages), episodes=episodes, mixture=shares, seed=seed
            )
            data.save(out)
        print(f"{len(data)} episodes, {len(data.actions)} steps: {out}")

    @app.command()
    def train(
        data: Annotated[Path, typer.Argument(help="The .npz file of `pidt collect`.")],
        out: Out,
        mask: Annotated[bool, typer.Option(help="Rule infeasible actions out.")] = True,
        penalty: Annotated[float, typer.Option(help="Weight of their probability.")] = 0.0,
        feature: Annotated[bool, typer.Option(help="Show the mask to the network.")] = True,
        context: Annotated[bool, typer.Option(help="Show the scenario to the network.")] = True,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        horizon: Annotated[
            int | None, typer.Option(help="Longest episode to serve; the data's by default.")
        ] = None,
        steps: Annotated[int, typer.Option(help="Of the optimiser.")] = 2000,
        batch_size: int = 64,
        lr: float = 1e-3,
        seed: Seed = 0,
        device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    ) -> None:
        """Fit a model to recorded restorations."""
        with one_line_errors():
            import torch

            from pidt.learning import fit
            from pidt.model import PIDT, PIDTConfig
            from pidt.trajectories import Trajectories

            found = Trajectories.load(data)
            actions = found.masks.shape[1]
            sizes = found.observations.shape[1], found.contexts.shape[1], actions
            config = PIDTConfig(
                state_dim=sizes[0] + sizes[1] * context + sizes[2] * feature,
                actions=actions,
                steps=max(horizon or 0, actions - 1, *(b - a for a, b in found.bounds())),
                dim=dim, layers=layers, heads=heads, positions=1,
                mask=mask, penalty=penalty, feature=feature, context=context,
            )  # fmt: skip
            torch.manual_seed(seed)
            model = PIDT(config).to(device)
            losses = fit(
                model, found, steps=steps, batch_size=batch_size, lr=lr, seed=seed,
                progress=lambda rows: _bar(rows, "training", steps),
            )  # fmt: skip
            model.cpu().save_pretrained(out)
        print(f"loss {losses[-1]:.4f}; best return in the data {found.best_return():.3f}: {out}")

    @app.command()
    def evaluate(
        model: Annotated[Path, typer.Argument(help="Folder that train wrote.")],
        network: Network,
        scenario: Scenario = None,
        outages: int = 100,
        target: Annotated[float, typer.Option(help="Return to ask for.")] = 0.6,
        spread: float = 0.2,
        damage: int = 1,
        seed: Seed = 1_000_000,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Compare a model with greedy and random on new outages, against the exact optimum."""
        with one_line_errors():
            import numpy as np

            from pidt.policies import greedy, play, random_feasible, roll_out
            from pidt.results import optima, summary

            drawn = _scenarios(network, scenario, spread, damage).many(outages, seed)
            problems = list(_bar(drawn, "outages", outages))
            best = optima(_bar(problems, "optima", outages))
            generator = np.random.default_rng(seed)
            played = {
                "model": roll_out(_load(model), problems, target),
                "greedy": [play(p, greedy) for p in problems],
                "random feasible": [play(p, random_feasible(generator)) for p in problems],
            }
            rows = {name: summary(episodes, best) for name, episodes in played.items()}
        if as_json:
            print(json.dumps(rows))
        else:
            _table(
                ["", *next(iter(rows.values()))],
                [[n, *map(_cell, r.values())] for n, r in rows.items()],
            )

    @app.command()
    def restore(
        network: Network,
        scenario: Scenario = None,
        policy: Annotated[
            str, typer.Option(help="greedy, optimal, random, or the folder of a model.")
        ] = "optimal",
        target: Annotated[float, typer.Option(help="Return to ask a model for.")] = 1.0,
        picture: Annotated[
            Path | None, typer.Option(help="Draw the feeder: .png, .svg, .pdf.")
        ] = None,
        seed: Seed = 0,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Print and draw the switching sequence of one outage."""
        with one_line_errors():
            from pidt import drawing

            problem = _problem(network, scenario)
            if problem.overload:
                raise ValueError(problem.overload)
            episode = _plan(problem, policy, target, seed)
            if picture is not None:
                drawing.draw(episode, picture)
        if as_json:
            print(json.dumps(_plan_json(episode)))
        else:
            _print_plan(episode)
        if picture is not None:
            print(f"drawn: {picture}", file=sys.stderr)

    return app


def _problem(network: str, scenario: Path | None) -> "Restoration":
    from pidt import scenarios
    from pidt.feeder import load_feeder

    return scenarios.problem(load_feeder(network), _scenario(network, scenario))


def _scenario(network: str, scenario: Path | None) -> dict[str, Any]:
    from pidt import scenarios

    if scenario is not None:
        if not scenario.is_file():
            raise FileNotFoundError(f"no scenario at {scenario}")
        return scenarios.read_scenario(scenario)
    if network == "case33bw":
        return scenarios.REFERENCE
    raise ValueError(f"{network}: say with --scenario where its sources and switches are")


def _scenarios(network: str, scenario: Path | None, spread: float, damage: int) -> "Scenarios":
    from pidt.feeder import load_feeder
    from pidt.scenarios import Scenarios

    told = _scenario(network, scenario)
    return Scenarios(feeder=load_feeder(network), scenario=told, spread=spread, damage=damage)


def _plan(problem: "Restoration", policy: str, target: float, seed: int) -> "Episode":
    import numpy as np

    from pidt import policies

    known: dict[str, Any] = {
        "greedy": lambda: policies.greedy,
        "optimal": lambda: policies.optimal(problem),
        "random": lambda: policies.random_feasible(np.random.default_rng(seed)),
    }
    if policy in known:
        decide: Policy = known[policy]()
        return policies.play(problem, decide)
    if not Path(policy).is_dir():
        raise ValueError(f"policy {policy}: neither {', '.join(known)} nor the folder of a model")
    return policies.restore(problem, _load(Path(policy)), target)


def _load(folder: Path) -> Any:
    from pidt.model import PIDT

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no model at {folder}: it has no config.json")
    return PIDT.from_pretrained(folder)


def _plan_json(episode: "Episode") -> dict[str, Any]:
    problem = episode.problem
    steps = [
        {
            "switch": step.switch,
            "feasible": step.feasible,
            "reward": step.reward,
            "restored_mw": step.restored_mw,
            "v_min": step.v_min,
            "sources": {
                problem.feeder.bus_name(bus): [power.real, power.imag]
                for bus, power in zip(problem.sources, step.sources, strict=True)
            },
            "why": step.why,
        }
        for step in episode.steps
    ]
    return {
        "feeder": problem.feeder.name,
        "restored_mw": episode.restored_mw,
        "total_mw": problem.total_mw,
        "start_mw": problem.restored(problem.start),
        "steps": steps,
    }


def _print_plan(episode: "Episode") -> None:
    from pidt.drawing import island_lines

    problem = episode.problem
    rows = []
    for number, step in enumerate(episode.steps, 1):
        name = "stop"
        if step.switch is not None:
            name = f"{step.switch} ({problem.feeder.line_name(step.switch - 1)})"
        power = ", ".join(f"{p.real:.3f} + j{p.imag:.3f}" for p in step.sources)
        rows.append(
            [str(number), name, f"{step.restored_mw:.3f}", f"{step.v_min:.4f}", power, step.why]
        )
    columns = ["step", "switch", "restored MW", "lowest V p.u.", "sources MW + j Mvar", "refused"]
    if not episode.refused:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    _table(columns, rows)
    print("\n".join(island_lines(problem, episode.state)))
    start = problem.restored(problem.start)
    print(
        f"{problem.feeder.name}: {start:.3f} MW at the start, {episode.restored_mw:.3f} of "
        f"{problem.total_mw:.3f} MW restored"
    )


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{text!r}: must be a JSON object")
    return found


def _bar(steps: Iterable[Any], name: str, total: int) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(steps, name, total=total, console=console, disable=not console.is_terminal)


def _cell(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table, width=None if console.is_terminal else 120, highlight=False)


if __name__ == "__main__":
    main()
