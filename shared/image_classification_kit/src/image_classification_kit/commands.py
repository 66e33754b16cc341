"""The command line of every image classifier: classify, evaluate, sizes, features, convert."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from image_classification_kit.images import (
    ImageError,
    Preprocessing,
    find_images,
    read_image,
    to_tensor,
)

Load = Callable[[Path], Any]
"""File or folder of weights -> the network, in evaluation mode."""
Draw = Callable[[Any, Any, Any, Path], Any]
"""(network, a batch of its input, the picture it shows, file): writes a figure of what the network
does with it."""
BAD_INPUT = 2
CARD = "preprocessing.json"
PAPER_SIZES = "96,112,128,160,192,224,288,384,448,512,640"
"""At which ResFormer tests (Table 1)."""

Checkpoint = Annotated[
    Path, typer.Option("--checkpoint", "-m", help="The authors' weights, or a saved folder.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes a GPU if any.")]
Size = Annotated[
    int | None, typer.Option(help="Side of the network's input; 0 leaves the picture as it is.")
]
Half = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 where that is safe.")]


def classification_app(
    name: str,
    load: Load,
    *,
    preprocessing: Preprocessing | None = None,
    draw: Draw | None = None,
    map_help: str = "",
) -> typer.Typer:
    """The commands of the package ``name`` whose networks ``load`` reads.

    Args:
        name: of the command.
        load: reads weights.
        preprocessing: of the published networks; ImageNet's at 224 by default.
        draw: makes the figure of ``classify --map``.
        map_help: what that figure shows.
    """
    app = typer.Typer(
        name=name, help="Image classification.", no_args_is_help=True, add_completion=False
    )
    console, errors = Console(), Console(stderr=True)

    def stop(error: object) -> typer.Exit:
        first = str(error).splitlines()[0] if str(error) else repr(error)
        errors.print(f"error: {first}", style="red", markup=False, highlight=False, soft_wrap=True)
        return typer.Exit(BAD_INPUT)

    def network(checkpoint: Path, device: str) -> Any:
        import torch

        if not checkpoint.exists():
            raise stop(f"no checkpoint at {checkpoint}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return load(checkpoint).to(device).eval()
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise stop(error) from error

    def prepared(checkpoint: Path, size: int | None) -> tuple[Preprocessing, list[str]]:
        """How inputs are made, and the names of the classes where they are known."""
        found, classes = preprocessing or Preprocessing(), []
        if (card := checkpoint / CARD).is_file():
            values = json.loads(card.read_text())
            classes = values.pop("classes", [])
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            found = Preprocessing(**values)
        try:
            return (found if size is None else replace(found, size=size or None)), classes
        except ValueError as error:
            raise stop(error) from error

    def labels_of(file: Path | None) -> list[str]:
        if file is None:
            return []
        try:
            text = file.read_text(encoding="utf-8")
            return json.loads(text) if file.suffix == ".json" else text.splitlines()
        except (OSError, ValueError) as error:
            raise stop(f"{file}: {error}") from error

    @app.command()
    def classify(
        images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
        checkpoint: Checkpoint,
        size: Size = None,
        top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 5,
        labels: Annotated[
            Path | None, typer.Option(help="Class names: a line each, or a JSON list.")
        ] = None,
        map_to: Annotated[
            Path | None, typer.Option("--map", help=map_help or "Not offered by this network.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
        device: Device = "auto",
        bf16: Half = False,
    ) -> None:
        """The most probable classes of image files."""
        import torch

        from image_classification_kit.evaluation import predict

        if map_to is not None and draw is None:
            raise stop(f"{name} draws no map")
        try:
            files = find_images(images)
        except (OSError, ValueError) as error:
            raise stop(error) from error
        if map_to is not None and len(files) > 1:
            raise stop(f"--map takes one image, not {len(files)}")
        model = network(checkpoint, device)
        steps, names = prepared(checkpoint, size)
        names = labels_of(labels) or names
        place, failed = next(model.parameters()).device, 0
        for file in files:
            try:
                seen = steps.picture(read_image(file))
                batch = steps.normalise(to_tensor(seen))[None].to(place)
                with torch.autocast(place.type, torch.bfloat16, enabled=bf16):
                    best = predict(model, batch, top=top)[0]
            except (ImageError, ValueError) as error:
                stop(error)
                failed += 1
                continue
            found = [
                {"class": c, "name": names[c] if c < len(names) else str(c), "probability": p}
                for c, p in zip(best.classes, best.probabilities, strict=True)
            ]
            if as_json:
                print(json.dumps({"image": str(file), "top": found}))
            else:
                table = Table("class", "probability", title=str(file), title_justify="left")
                for row in found:
                    table.add_row(str(row["name"]), f"{row['probability']:.1%}")
                console.print(table)
            if map_to is not None and draw is not None:
                try:
                    draw(model, batch, seen, map_to)
                except (OSError, ValueError) as error:
                    raise stop(error) from error
                errors.print(f"map written to {map_to}", markup=False)
        if failed:
            raise typer.Exit(BAD_INPUT)

    @app.command()
    def evaluate(
        data: Annotated[str, typer.Argument(help="Folder with CLASS/*, or a packaged data set.")],
        checkpoint: Checkpoint,
        size: Annotated[
            list[int] | None, typer.Option(help="Side of the input; give it again for more sizes.")
        ] = None,
        batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
        workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
        device: Device = "auto",
        bf16: Half = False,
    ) -> None:
        """Top-1 and top-5 accuracy, at one input size or several."""
        from image_classification_kit.datasets import open_images
        from image_classification_kit.evaluation import evaluate as measure
        from image_classification_kit.evaluation import require_classes

        model = network(checkpoint, device)
        table = Table("size", "images", "top-1", "top-5")
        for side in size or [None]:  # type: ignore[list-item]
            steps, _ = prepared(checkpoint, side)
            try:
                dataset = open_images(data, "val", steps)
                require_classes(model.config.classes, dataset.classes)
                found = measure(
                    model,
                    dataset,
                    batch_size=batch if steps.size else 1,
                    workers=workers,
                    bf16=bf16,
                    progress=lambda batches: track(batches, "evaluating", console=errors),
                )
            except (OSError, ValueError, ImportError) as error:
                raise stop(error) from error
            if as_json:
                print(json.dumps({"size": steps.size, **asdict(found)}))
            row = (str(steps.size or "own"), str(found.images), f"{found.top1:.2%}")
            table.add_row(*row, f"{found.top5:.2%}")
        if not as_json:
            console.print(table)

    @app.command()
    def sizes(
        data: Annotated[str, typer.Argument(help="Folder with CLASS/*, or a packaged data set.")],
        checkpoints: Annotated[
            list[Path],
            typer.Option("--checkpoint", "-m", help="Weights; give it again for more networks."),
        ],
        sides: Annotated[
            str, typer.Option("--sizes", help="Sides of the test images, with commas.")
        ] = PAPER_SIZES,
        out: Annotated[
            Path | None, typer.Option("-o", "--out", help="Draw accuracy over size into a file.")
        ] = None,
        batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
        workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
        device: Device = "auto",
        bf16: Half = False,
    ) -> None:
        """Top-1 accuracy over the size of the test images, for one network or several."""
        from image_classification_kit.datasets import open_images
        from image_classification_kit.evaluation import at_size, require_classes
        from image_classification_kit.evaluation import evaluate as measure
        from image_classification_kit.figures import accuracy_figure

        if not all(side.strip().isdigit() and int(side) for side in sides.split(",")):
            raise stop(f"--sizes {sides}: must be sides in pixels, such as 96,128,224")
        wanted = [int(side) for side in sides.split(",")]
        curves: dict[str, list[float]] = {}
        for checkpoint in checkpoints:
            model, curve = network(checkpoint, device), []
            for side in track(wanted, checkpoint.stem, console=errors):
                try:
                    dataset = open_images(data, "val", prepared(checkpoint, side)[0])
                    require_classes(model.config.classes, dataset.classes)
                    resized = at_size(model, side)
                    found = measure(resized, dataset, batch_size=batch, workers=workers, bf16=bf16)
                except (OSError, ValueError, ImportError) as error:
                    raise stop(error) from error
                curve.append(found.top1)
                if as_json:
                    told = {"checkpoint": str(checkpoint), "size": side, **asdict(found)}
                    print(json.dumps(told))
            curves[str(checkpoint)] = curve
        if not as_json:
            table = Table("size", *curves)
            for side, *row in zip(wanted, *curves.values(), strict=True):
                table.add_row(str(side), *(f"{value:.2%}" for value in row))
            console.print(table)
        if out is not None:
            try:
                accuracy_figure(wanted, curves, out)
            except (OSError, ValueError) as error:
                raise stop(error) from error
            errors.print(f"figure written to {out}", markup=False)

    @app.command()
    def features(
        images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
        checkpoint: Checkpoint,
        out: Annotated[Path, typer.Option("-o", "--out", help="File .npz: features and names.")],
        size: Size = None,
        device: Device = "auto",
    ) -> None:
        """The pooled features of image files, for retrieval or a classifier of your own."""
        import numpy as np
        import torch
        from attention_core import atomic_path

        model = network(checkpoint, device)
        steps, _ = prepared(checkpoint, size)
        place, rows = next(model.parameters()).device, []
        try:
            files = find_images(images)
            for file in track(files, "extracting", console=errors):
                batch = steps(read_image(file))[None].to(place)
                with torch.no_grad():
                    found = model.forward_head(model.forward_features(batch), pre_logits=True)
                rows.append(found[0].float().cpu().numpy())
            with atomic_path(out) as part, part.open("wb") as handle:
                np.savez(handle, features=np.stack(rows), names=np.array([str(f) for f in files]))
        except (OSError, ValueError) as error:
            raise stop(error) from error
        console.print(f"{len(rows)} x {len(rows[0])} features written to {out}", markup=False)

    @app.command()
    def convert(
        checkpoint: Annotated[Path, typer.Argument(help="The authors' weights.")],
        out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    ) -> None:
        """The authors' weights as a folder of config.json and model.safetensors."""
        model = network(checkpoint, "cpu")
        try:
            model.save_pretrained(out)
        except OSError as error:
            raise stop(error) from error
        console.print(f"written to {out}", markup=False)

    return app
