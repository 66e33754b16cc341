"""``rat restore | segment | evaluate | show``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from attention_core import one_line_errors
from image_restoration_kit.commands import BAD_INPUT, Checkpoint, Device
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

Inputs = Annotated[list[Path], typer.Argument(help="DICOM, NIfTI or pictures, or folders of them.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write into.")]
Segment = Annotated[
    str, typer.Option(help="Regions by felzenszwalb, slic, quantiles, sam (an extra), or one.")
]
Window = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Intensities that are black and white, such as -160 240 in Hounsfield."),
]

app = typer.Typer(
    name="rat", help="Medical image restoration.", no_args_is_help=True, add_completion=False
)
console, errors = Console(), Console(stderr=True)


@app.command()
def restore(
    inputs: Inputs,
    checkpoint: Checkpoint,
    out: Out,
    regions: Annotated[
        Path | None, typer.Option(help="Label maps of the same stems: a folder, or a file.")
    ] = None,
    segment: Segment = "felzenszwalb",
    window: Window = None,
    device: Device = "auto",
) -> None:
    """Restore each slice; intensities, header and geometry are kept, a bad file is reported."""
    from rat.scans import read_scan, restore_scan, write_scan

    model = network(checkpoint, device)

    def one(file: Path) -> None:
        scan = read_scan(file, window)
        with progress(file.name) as track:
            maps = find_regions(scan, regions, segment, model.scale)
            write_scan(out / file.name, restore_scan(model, scan, maps, track))

    each(inputs, out, one)


@app.command()
def segment(inputs: Inputs, out: Out, by: Segment = "felzenszwalb", window: Window = None) -> None:
    """Write a map of regions per file, STEM.nii.gz, to look at, to mend, or to train with."""
    from rat.scans import read_scan, stem, write_regions

    def one(file: Path) -> None:
        scan = read_scan(file, window)
        write_regions(out / f"{stem(file)}.nii.gz", find_regions(scan, None, by, 1), scan)

    each(inputs, out, one)


@app.command()
def evaluate(
    root: Annotated[Path, typer.Argument(help="Folder with test/fd, test/qd and region maps.")],
    checkpoint: Checkpoint,
    regions: Annotated[
        str, typer.Option(help="The folder of maps, or a way to make them.")
    ] = "qd_seg_123456",
    split: str = "test",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """PSNR and SSIM per slice and their mean, plain and as the authors report them."""
    import json

    import torch
    import torch.nn.functional as F

    from rat.data import PairedSlices, scores

    model = network(checkpoint, device)
    with one_line_errors():
        data = PairedSlices(
            root, split, regions=regions, scale=model.scale, channels=model.channels
        )
        place = next(model.parameters()).device
        rows: dict[str, dict[str, float]] = {}
        with progress(split) as track, torch.inference_mode():
            for name in track(data.names):
                degraded, clean, labels = (part[None].to(place) for part in data.slice(name))
                before = F.interpolate(degraded, scale_factor=model.scale, mode="bilinear")
                rows[name] = scores(model(degraded, labels).cpu(), clean.cpu())
                rows[name]["input_psnr"] = scores(before.cpu(), clean.cpu())["psnr"]
    columns = list(next(iter(rows.values())))
    rows["mean"] = {c: sum(row[c] for row in rows.values()) / len(rows) for c in columns}
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("slice", *columns)
    for name, row in rows.items():
        table.add_row(name, *(f"{row[c]:.4f}" for c in columns))
    console.print(table)


@app.command()
def show(checkpoint: Annotated[Path, typer.Argument(help="Weights.")]) -> None:
    """What a file of weights is: sizes, parameters."""
    model = network(checkpoint, "cpu")
    count = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"RAT x{model.scale}, {count:,} parameters\n{model.config}", highlight=False)


def network(checkpoint: Path, device: str) -> Any:
    """The network in evaluation mode on its device."""
    import torch

    from rat.model import RAT

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with one_line_errors():
        return RAT.load(checkpoint).to(device)


def find_regions(scan: Any, place: Path | None, method: str, scale: int) -> Any:
    """The maps in ``place`` for the scan, or made by ``method`` slice by slice."""
    import torch

    from rat.data import enlarge_regions
    from rat.regions import make_regions
    from rat.scans import read_regions, stem, suffix

    if place is None:
        maps = [make_regions(x.clamp(0, 1), method) for x in scan.unit]
        return torch.stack([enlarge_regions(labels, scale) for labels in maps])
    if place.is_dir():
        found = [file for file in place.iterdir() if stem(file) == stem(scan.path) and suffix(file)]
        if not found:
            raise FileNotFoundError(f"{place} holds no region map for {scan.path.name}")
        place = found[0]
    return read_regions(place)


def each(inputs: list[Path], out: Path, one: Any) -> None:
    """Do ``one`` to every file; report bad ones, and exit with 2 if there were any."""
    from rat.scans import find_scans

    with one_line_errors():
        files = find_scans(inputs)
    failed = 0
    for file in files:
        try:
            with one_line_errors():
                one(file)
        except SystemExit:
            failed += 1
    console.print(f"{len(files) - failed} of {len(files)} written to {out}", highlight=False)
    if failed:
        raise typer.Exit(BAD_INPUT)


@contextmanager
def progress(title: str) -> Iterator[Any]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=errors, transient=True) as bar:
        yield lambda steps: bar.track(steps, description=title)


def main() -> None:
    app()
