"""The command line of a forecasting paper: ``train``, ``evaluate``, ``predict``, ``import``.

A package gives its forecaster and functions whose signatures are its own options::

    def network(
        d_model: Annotated[int, typer.Option(help="Width of a token.")] = 512,
        layers: int = 3,
    ) -> dict[str, Any]:
        return {"dim": d_model, "layers": layers}

    app = forecasting_app("itransformer", Forecaster, network=network)

    def main() -> None:
        app()
"""

import functools
import inspect
import json
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from attention_core import PaperModel, atomic_path
from rich.console import Console
from rich.table import Table as RichTable

from forecasting_kit.datasets import DATASETS, load_data
from forecasting_kit.forecaster import Evaluation, Forecaster
from forecasting_kit.tables import from_frame

Data = Annotated[
    str,
    typer.Option(
        help="CSV file (times first, then one column per variate; or unique_id, ds, y), "
        ".npz (PEMS), .txt (Solar), or the name of a data set."
    ),
]
Root = Annotated[Path, typer.Option(help="Folder that the published data files are below.")]
Kind = Annotated[
    str | None, typer.Option(help="File format: custom, ett-hour, ett-minute, solar, pems.")
]
Fill = Annotated[str | None, typer.Option(help="Close gaps: ffill or interpolate.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default a GPU if there is one.")
]
Bundle = Annotated[Path, typer.Argument(help="What train or import wrote.")]

out = Console()
err = Console(stderr=True)


def forecasting_app(
    name: str,
    forecaster: type[Forecaster],
    *,
    network: Callable[..., dict[str, Any]],
    official: Callable[..., PaperModel] | None = None,
    more: Sequence[Callable[..., None]] = (),
) -> typer.Typer:
    """The command line of one paper.

    Args:
        name: the command.
        forecaster: the package's subclass.
        network: its parameters become options of ``train``; returns options of the network.
        official: its first parameter is the authors' checkpoint, the others become options of
            ``import``; returns the network. Without it ``import`` reads only this project's models.
        more: the paper's own commands, by their names.
    """
    app = typer.Typer(name=name, no_args_is_help=True, add_completion=False, help=_help(forecaster))
    app.command()(_clean(_with_options(_train(forecaster, network), network)))
    app.command()(_clean(_evaluate(forecaster)))
    app.command()(_clean(_predict(forecaster)))
    converter = official or (lambda checkpoint: _no_converter(name))
    app.command("import")(_clean(_with_options(_import(forecaster, converter), converter, skip=1)))
    for command in more:
        app.command()(_clean(command))
    return app


def _train(forecaster: type[Forecaster], network: Callable[..., dict[str, Any]]) -> Callable:
    def train(
        data: Data,
        out_: Annotated[Path, typer.Option("--out", help="The bundle to write.")],
        lookback: Annotated[int, typer.Option(help="Steps seen.")] = 96,
        horizon: Annotated[int, typer.Option(help="Steps forecast.")] = 96,
        features: Annotated[
            str, typer.Option(help="M: all from all; S: the target from itself; MS: from all.")
        ] = "M",
        target: Annotated[str | None, typer.Option(help="Column that S and MS forecast.")] = None,
        marks: Annotated[
            str,
            typer.Option(help="Time features: auto (the data's step), h as published, ..., none."),
        ] = "auto",
        epochs: Annotated[int, typer.Option(help="At most.")] = 10,
        batch_size: Annotated[int, typer.Option(help="Windows per step.")] = 32,
        lr: Annotated[float, typer.Option(help="Adam's first learning rate.")] = 5e-4,
        schedule: Annotated[
            str, typer.Option(help="type1 (halving), type2, type3, cosine or constant.")
        ] = "type1",
        patience: Annotated[int, typer.Option(help="Epochs without improvement.")] = 3,
        variates_per_batch: Annotated[
            int | None, typer.Option(help="Train each batch on so many random variates.")
        ] = None,
        split: Annotated[
            str | None,
            typer.Option(
                help="Shares of train, val, test such as 0.8,0.2,0; 0.7,0.1,0.2 unless "
                "the data set has its own."
            ),
        ] = None,
        seed: int = 0,
        root: Root = Path("data"),
        kind: Kind = None,
        fill: Fill = None,
        device: Device = None,
        **options: Any,
    ) -> None:
        """Train on a table of series and write one file that predicts."""
        table = load_data(data, root=root, kind=kind)
        model = forecaster(
            lookback,
            horizon,
            features=features,
            target=target,
            marks=None if marks == "none" else marks,
            split=_split(split, data, kind),
            fill=fill,
            device=device,
            **network(**options),
        )
        model.fit(
            table,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            schedule=schedule,
            patience=patience,
            variates_per_batch=variates_per_batch,
            seed=seed,
        )
        model.save(out_)
        _print_history(model)
        out.print(f"wrote {out_}")

    return train


def _evaluate(forecaster: type[Forecaster]) -> Callable:
    def evaluate(
        bundle: Bundle,
        data: Data,
        split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
        json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
        plot: Annotated[Path | None, typer.Option(help="Write a picture of the errors.")] = None,
        compare: Annotated[bool, typer.Option(help="Score the baselines as well.")] = True,
        root: Root = Path("data"),
        kind: Kind = None,
        device: Device = None,
    ) -> None:
        """Errors on a split in scaled space, next to the baselines'."""
        model = forecaster.load(bundle, device=device)
        table = load_data(data, root=root, kind=kind)
        result = model.evaluate(table, split, compare=compare, progress=not json_)
        if plot is not None:
            from forecasting_kit.plots import plot_errors, save_figure

            save_figure(plot_errors(result.errors, result.columns), plot)
        if json_:
            typer.echo(json.dumps(result.to_dict()))
        else:
            _print_evaluation(result)

    return evaluate


def _predict(forecaster: type[Forecaster]) -> Callable:
    def predict(
        bundle: Bundle,
        data: Data,
        out_: Annotated[Path, typer.Option("--out", help="The CSV file to write.")],
        plot: Annotated[Path | None, typer.Option(help="Write a picture of the forecast.")] = None,
        root: Root = Path("data"),
        kind: Kind = None,
        fill: Fill = None,
        device: Device = None,
    ) -> None:
        """Forecast what follows the end of the data: future times, the data's own units."""
        model = forecaster.load(bundle, device=device)
        model.fill = fill or model.fill
        table = load_data(data, root=root, kind=kind)
        forecast = model.predict(table)
        with atomic_path(out_) as part:
            forecast.to_csv(part, index=table.layout == "wide")
        if plot is not None:
            from forecasting_kit.plots import plot_forecast, save_figure

            history = table.tail(2 * model.lookback).wide()
            save_figure(plot_forecast(history, from_frame(forecast).wide()), plot)
        out.print(f"wrote {len(forecast)} rows to {out_}")

    return predict


def _import(forecaster: type[Forecaster], official: Callable[..., PaperModel]) -> Callable:
    def import_(
        checkpoint: Annotated[
            Path, typer.Argument(help="The authors' file, or a folder that a training run wrote.")
        ],
        out_: Annotated[Path, typer.Option("--out", help="The bundle to write.")],
        data: Annotated[
            str | None, typer.Option(help="What it was trained on, for the scale of its columns.")
        ] = None,
        lookback: Annotated[int | None, typer.Option(help="Checked against the file.")] = None,
        horizon: Annotated[int | None, typer.Option(help="Checked against the file.")] = None,
        features: Annotated[str, typer.Option(help="M, S or MS.")] = "M",
        target: Annotated[str | None, typer.Option(help="Column that S and MS forecast.")] = None,
        split: Annotated[
            str | None, typer.Option(help="Shares of train, val and test, such as 0.8,0.2,0.")
        ] = None,
        root: Root = Path("data"),
        kind: Kind = None,
        **options: Any,
    ) -> None:
        """Turn a trained network into a bundle that evaluates and predicts."""
        if not checkpoint.exists():
            raise FileNotFoundError(f"no checkpoint at {checkpoint}")
        if checkpoint.is_dir():
            network = forecaster.model_class.from_pretrained(str(checkpoint))
        else:
            network = official(checkpoint, **options)
        for name, asked in (("lookback", lookback), ("horizon", horizon)):
            found = getattr(network.config, name)
            if asked not in (None, found):
                raise ValueError(f"--{name} {asked}: the checkpoint was trained for {found}")
        model = forecaster.adopt(
            network,
            data=None if data is None else load_data(data, root=root, kind=kind),
            features=features,
            target=target,
            split=_split(split, data or "", kind),
        )
        model.save(out_)
        if data is None:
            err.print("no --data: columns will be scaled by whatever data is forecast")
        out.print(f"wrote {out_}")

    return import_


def _no_converter(name: str) -> PaperModel:
    raise ValueError(f"{name} reads folders written by training runs, no authors' checkpoints")


def _with_options(
    command: Callable[..., None], options: Callable[..., Any], *, skip: int = 0
) -> Callable[..., None]:
    """``command`` whose ``**options`` are spelt out as the parameters of ``options``."""
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    hints = typing.get_type_hints(options, include_extras=True)
    added = [
        parameter.replace(
            kind=parameter.KEYWORD_ONLY, annotation=hints.get(parameter.name, parameter.annotation)
        )
        for parameter in list(inspect.signature(options).parameters.values())[skip:]
    ]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own] + added

    @functools.wraps(command)
    def spelt_out(**values: Any) -> None:
        command(**values)

    spelt_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spelt_out.__annotations__ = {p.name: p.annotation for p in parameters}
    return spelt_out


def _clean(command: Callable[..., None]) -> Callable[..., None]:
    """Exit with 2 and one line, not a traceback, when the user's input is at fault."""

    @functools.wraps(command)
    def clean(**values: Any) -> None:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                command(**values)
            for text in dict.fromkeys(str(warning.message) for warning in caught):
                typer.secho(f"warning: {text}", err=True, fg="yellow")
        except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
            typer.secho(f"error: {' '.join(str(error).split())}", err=True, fg="red")
            raise typer.Exit(2) from error

    return clean


def _split(shares: str | None, data: str, kind: str | None) -> Any:
    if shares is not None:
        try:
            return tuple(float(share) for share in shares.split(","))
        except ValueError:
            raise ValueError(f"--split {shares}: must be three shares such as 0.8,0.2,0") from None
    if kind is not None:
        return kind
    by_suffix = {".npz": "pems", ".txt": "solar"}.get(Path(data).suffix, "custom")
    return DATASETS[data].kind if data in DATASETS else by_suffix


def _print_history(model: Forecaster) -> None:
    table = RichTable("epoch", "learning rate", "train MSE", "validation MSE")
    for epoch in model.history:
        val = "-" if epoch.val_mse is None else f"{epoch.val_mse:.4f}"
        table.add_row(str(epoch.epoch), f"{epoch.learning_rate:.2g}", f"{epoch.train_mse:.4f}", val)
    out.print(table)


def _print_evaluation(result: Evaluation) -> None:
    title = f"{result.split}: {result.errors.windows} windows, {len(result.columns)} variates"
    table = RichTable("", "MSE", "MAE", "median MSE of variates", title=title)
    rows = {"model": result.errors, **result.baselines}
    for name, e in sorted(rows.items(), key=lambda row: row[1].mse):
        table.add_row(name, f"{e.mse:.4f}", f"{e.mae:.4f}", f"{e.median_mse:.4f}")
    out.print(table)


def _help(forecaster: type[Forecaster]) -> str:
    return f"Forecast many series at once with {forecaster.model_class.__name__}."
