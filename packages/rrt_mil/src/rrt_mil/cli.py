"""``rrt-mil train | evaluate | predict | prototypes | import``."""

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attention_core import needs_extra, one_line_errors

if TYPE_CHECKING:
    from rrt_mil.model import R2TMIL, R2TMILConfig


def main() -> None:
    """Run the command line; it needs the extra ``data``, and ``train`` the extra ``train``."""
    with needs_extra("rrt-mil", "data"):
        app = _app()
    app()


def _app() -> Any:
    import typer

    app = typer.Typer(
        help="R²T-MIL: slide-level labels from patch features.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    Features = Annotated[
        Path,
        typer.Argument(help="Folder of features: .pt, .h5 or .npy files, or CLAM's or TRIDENT's."),
    ]
    Labels = Annotated[
        Path,
        typer.Argument(help="CSV: name,label without header; slide_id,label; or survival."),
    ]
    Model = Annotated[Path, typer.Argument(help="Folder of a model that train or import wrote.")]
    Drop = Annotated[
        bool, typer.Option("--drop-invalid", help="Leave out instances with NaN or infinity.")
    ]
    Skip = Annotated[
        bool, typer.Option("--skip-missing", help="Leave out slides without features.")
    ]
    Classes = Annotated[
        str | None, typer.Option(help="Names of the labels in their order: LUAD,LUSC.")
    ]
    Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")]
    Macro = Annotated[bool, typer.Option("--macro-f1", help="F1 as the mean over both classes.")]

    @app.command()
    def train(
        features: Features,
        labels: Labels,
        out: Annotated[Path, typer.Option(help="Folder of the run; called again, it goes on.")],
        variant: Annotated[
            str, typer.Option(help="Published sizes; the features' width is read off the files.")
        ] = "rrtmil_c16_r50",
        plain: Annotated[
            bool, typer.Option("--plain", help="Without R²T: the aggregator alone, to compare.")
        ] = False,
        dim: Annotated[int | None, typer.Option(help="Another width.")] = None,
        regions: Annotated[int | None, typer.Option(help="R-MSA regions per side.")] = None,
        classes: Classes = None,
        folds: Annotated[int, typer.Option(help="Folds of patients.")] = 5,
        val_share: Annotated[
            float,
            typer.Option(
                help="Of the training patients, to choose the best epoch by; with 0, as "
                "published, it is chosen on the test fold."
            ),
        ] = 0.0,
        epochs: int = 200,
        patience: Annotated[int, typer.Option(help="Epochs without a better score.")] = 30,
        start: Annotated[int, typer.Option(help="First epoch that may be the last.")] = 130,
        lr: float = 2e-4,
        weight_decay: float = 1e-5,
        batch_size: Annotated[int, typer.Option(help="Bags per step.")] = 1,
        seed: int = 2021,
        split_seed: Annotated[int | None, typer.Option(help="Of the folds; the seed's.")] = None,
        macro_f1: Macro = False,
        drop_invalid: Drop = False,
        skip_missing: Skip = False,
        keep: Annotated[bool, typer.Option(help="Hold the bags in memory.")] = True,
        workers: int = 0,
        accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, ...")] = "auto",
        confounders: Annotated[
            Path | None, typer.Option(help="IBMIL: a .npy file that prototypes wrote.")
        ] = None,
    ) -> None:
        """Train and test every fold; write models, logs and results.json."""
        with one_line_errors():
            from rrt_mil.crossval import Settings, cross_validate
            from rrt_mil.tables import read_table

            table = read_table(labels, features, classes=_names(classes), skip_missing=skip_missing)
            network = _network(table, variant, plain=plain, dim=dim, regions=regions)
            settings = Settings(
                folds=folds,
                split_seed=seed if split_seed is None else split_seed,
                val_share=val_share,
                epochs=epochs,
                patience=patience,
                start=start,
                lr=lr,
                weight_decay=weight_decay,
                batch_size=batch_size,
                seed=seed,
                macro_f1=macro_f1,
                drop_invalid=drop_invalid,
                skip_missing=skip_missing,
                keep=keep,
                workers=workers,
                accelerator=accelerator,
                confounders=confounders,
            )
            found = cross_validate(table, features, labels, network, settings, out)
        _print_folds(found)
        print(f"results: {out / 'results.json'}; models: {out / 'fold_*' / 'model'}")

    @app.command()
    def evaluate(
        model: Model,
        features: Features,
        labels: Labels,
        classes: Classes = None,
        macro_f1: Macro = False,
        drop_invalid: Drop = False,
        skip_missing: Skip = False,
        device: Device = "cpu",
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Measure a model on labelled slides: AUC, accuracy, F1, or the C-index."""
        with one_line_errors():
            from rrt_mil import crossval
            from rrt_mil.tables import read_table

            network = _load(model, device)
            task = crossval.read_task(model, network.config)
            known = _names(classes)
            if known is None and task["task"] == "classification":
                known = list(task["classes"])
            table = read_table(labels, features, classes=known, skip_missing=skip_missing)
            found = crossval.evaluate(
                network, table, macro=macro_f1, drop_invalid=drop_invalid, progress=_bar
            )
        if as_json:
            print(json.dumps(found))
        else:
            _table(["metric", f"{len(table)} bags"], [[k, f"{v:.4f}"] for k, v in found.items()])

    @app.command()
    def predict(
        model: Model,
        slides: Annotated[list[Path], typer.Argument(help="Feature files, or folders of them.")],
        out: Annotated[Path | None, typer.Option(help="Write the predictions to this CSV.")] = None,
        maps: Annotated[
            Path | None,
            typer.Option(help="Write attention maps (PNG and CSV) below this folder."),
        ] = None,
        drop_invalid: Drop = False,
        device: Device = "cpu",
    ) -> None:
        """Label slides; with --maps, show where the model looked."""
        with one_line_errors():
            from rrt_mil import crossval

            network = _load(model, device)
            task = crossval.read_task(model, network.config)
            rows = []
            steps = crossval.predict(network, task, _files(slides), drop_invalid=drop_invalid)
            for found in _bar(steps):
                row = {"slide": found.slide, "instances": found.instances, "label": found.label}
                rows.append(row | {name: round(s, 6) for name, s in found.scores.items()})
                if maps is not None:
                    _write_map(found, maps)
            columns = list(rows[0])
            if out is not None:
                _write_csv(out, rows)
        _table(columns, [[_cell(row[column]) for column in columns] for row in rows])
        for written in filter(None, (out, maps)):
            print(f"written: {written}")

    @app.command()
    def prototypes(
        model: Model,
        slides: Annotated[list[Path], typer.Argument(help="Training slides, or folders of them.")],
        out: Annotated[Path, typer.Option(help="The .npy file.")],
        count: Annotated[int, typer.Option(help="Clusters of bags.")] = 8,
        seed: int = 0,
        device: Device = "cpu",
    ) -> None:
        """Cluster the bags that an AB-MIL saw: the confounders of IBMIL."""
        with one_line_errors():
            import numpy as np
            from attention_core import atomic_path

            from rrt_mil.bags import read_bag
            from rrt_mil.prototypes import bag_prototypes

            network = _load(model, device)
            width = network.config.features
            bags = (read_bag(p, width=width).features.to(device) for p in _bar(_files(slides)))
            means = bag_prototypes(network, bags, count, seed)
            with atomic_path(out) as part:
                np.save(part, means.numpy())
        print(f"{count} prototypes: {out}")

    @app.command("import")
    def import_(
        checkpoint: Annotated[Path, typer.Argument(help="fold_K_model_best_auc.pt and the like.")],
        out: Annotated[Path, typer.Option(help="Folder of the model.")],
        variant: Annotated[
            str | None, typer.Option(help="The published run that trained it: rrtmil_c16_r50, ...")
        ] = None,
        settings: Annotated[
            str, typer.Option(help='Other settings as JSON: {"activation": "gelu"}.')
        ] = "{}",
        encoder: Annotated[
            str, typer.Option(help='Those of R²T as JSON: {"shortcut": true, "crmsa_heads": 1}.')
        ] = "{}",
    ) -> None:
        """Read a checkpoint of the authors' code and write it as a model folder."""
        with one_line_errors():
            from rrt_mil.model import R2TMIL

            network = R2TMIL.from_official(
                checkpoint, variant=variant, encoder=_json(encoder), **_json(settings)
            )
            network.save_pretrained(out)
        print(f"{network.config.aggregator} of {network.config.classes} classes: {out}")

    return app


def _network(table: Any, variant: str, *, plain: bool, dim: int | None, regions: int | None) -> Any:
    """The variant, with the width of the features and the classes of the table."""
    from dataclasses import replace

    from rrt_mil.bags import read_bag
    from rrt_mil.model import VARIANTS

    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}; there is {', '.join(VARIANTS)}")
    network: R2TMILConfig = VARIANTS[variant]
    encoder = network.encoder
    if encoder is not None:
        changes: dict[str, Any] = {"dim": dim, "regions": regions}
        encoder = replace(encoder, **{k: v for k, v in changes.items() if v is not None})
    width = read_bag(table.items[0].paths[0], drop_invalid=True).features.shape[1]
    return replace(
        network,
        features=width,
        classes=len(table.classes),
        dim=dim or network.dim,
        encoder=None if plain else encoder,
    )


def _load(folder: Path, device: str) -> "R2TMIL":
    from rrt_mil.model import R2TMIL

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no model at {folder}: it has no config.json")
    return R2TMIL.from_pretrained(folder).to(device)


def _files(slides: list[Path]) -> list[Path]:
    from rrt_mil.bags import FeatureFolder

    found: list[Path] = []
    for path in slides:
        found += FeatureFolder(path).files.values() if path.is_dir() else [path]
    return found


def _write_map(found: Any, folder: Path) -> None:
    from rrt_mil.bags import BagError, coordinates_of
    from rrt_mil.pictures import attention_picture, save_picture

    placed = found.bag.coordinates, found.bag.patch
    if placed[0] is None:
        placed = coordinates_of(found.path) or (None, None)
    if placed[0] is None:
        raise BagError(f"{found.path}: no coordinates, neither in it nor in an h5_files beside it")
    coordinates, patch = placed
    picture = attention_picture(coordinates, found.attention, patch)
    save_picture(picture, folder / f"{found.slide}.png")
    weights = zip(coordinates.tolist(), found.attention.tolist(), strict=True)
    _write_csv(
        folder / f"{found.slide}.csv", [{"x": x, "y": y, "attention": w} for (x, y), w in weights]
    )


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    from attention_core import atomic_path

    with atomic_path(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _names(classes: str | None) -> list[str] | None:
    return None if classes is None else [name.strip() for name in classes.split(",")]


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{text!r}: must be a JSON object")
    return found


def _bar(steps: Any) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(steps, "bags", console=console, transient=True, disable=not console.is_terminal)


def _print_folds(found: dict[str, Any]) -> None:
    names = list(found["mean"])
    rows = [
        [str(fold), *(f"{scores[name]:.4f}" for name in names)]
        for fold, scores in enumerate(found["folds"])
    ]
    average = [f"{found['mean'][name]:.4f} ± {found['std'][name]:.4f}" for name in names]
    _table(["fold", *names], [*rows, ["mean", *average]])


def _table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
