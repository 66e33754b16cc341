"""The command line of every super-resolution package: upscale, evaluate, prepare, show."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Load = Callable[[Path], Any]
"""File or folder of weights -> the network, in evaluation mode."""
BAD_INPUT = 2

Checkpoint = Annotated[
    Path, typer.Option("--checkpoint", "-m", help="The authors' weights, or a saved folder.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes a GPU if any.")]
TileSide = Annotated[
    str,
    typer.Option("--tile", "-t", help="Side of the tiles in input pixels; auto, or 0 for none."),
]
Halo = Annotated[int, typer.Option(help="Input pixels that a tile sees beyond itself.")]
Ensemble = Annotated[bool, typer.Option("--ensemble", help="Average over 8 flips and rotations.")]
Half = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 where that is safe.")]


def super_resolution_app(name: str, load: Load) -> typer.Typer:
    """The commands of the package ``name`` whose networks ``load`` reads."""
    return _app(name, load, "upscale", "Image super-resolution.", "bicubic", on_luma=True)


def restoration_app(
    name: str, load: Load, *, verb: str = "restore", help: str = "", on_luma: bool = True
) -> typer.Typer:
    """The commands of a package whose networks give images of their input's size.

    Args:
        name: the command.
        load: reads the networks.
        verb: what they do to images.
        help: of the command.
        on_luma: whether the field compares luma or all three channels.
    """
    return _app(name, load, verb, help or "Image restoration.", "input", on_luma=on_luma)


def _app(
    name: str, load: Load, verb: str, help: str, baseline: str, *, on_luma: bool
) -> typer.Typer:
    app = typer.Typer(name=name, help=help, no_args_is_help=True, add_completion=False)
    console, errors = Console(), Console(stderr=True)

    def stop(error: object) -> typer.Exit:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return typer.Exit(BAD_INPUT)

    def network(checkpoint: Path, device: str, scale: int | None = None) -> Any:
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = load(checkpoint).to(device)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise stop(str(error).splitlines()[0]) from error
        if scale is not None and model.scale != scale:
            raise stop(f"{checkpoint} enlarges {model.scale} times, not {scale}")
        return model

    def bar() -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=errors,
        )

    @app.command(verb)
    def upscale(
        inputs: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
        checkpoint: Checkpoint,
        out: Annotated[
            Path, typer.Option("-o", "--out", help="A folder, or a file for one image.")
        ],
        tile: TileSide = "auto",
        halo: Halo = 32,
        ensemble: Ensemble = False,
        device: Device = "auto",
        bf16: Half = False,
        scale: Annotated[int | None, typer.Option(help="Refuse weights of another scale.")] = None,
        alpha: Annotated[str, typer.Option(help="Enlarge opacity by network or bicubic.")] = (
            "network"
        ),
        edge: Annotated[str, typer.Option(help="Continue borders by reflect or symmetric.")] = (
            "reflect"
        ),
        suffix: Annotated[str, typer.Option(help="Put behind each name.")] = "",
        kind: Annotated[
            str, typer.Option("--format", help="auto keeps the input's; or png, jpg, webp, tif.")
        ] = "auto",
    ) -> None:
        """Put images through the network; a bad file is reported and the others go on."""
        import torch

        from image_restoration_kit.enlarge import enlarge_picture, seam_error
        from image_restoration_kit.images import SUFFIXES, find_images, read_picture, write_picture

        model = network(checkpoint, device, scale)
        try:
            files = find_images(inputs)
            tiling_of = tiling_choice(model, tile, halo)
        except (OSError, ValueError) as error:
            raise stop(error) from error
        single = out.suffix.lower() in SUFFIXES
        if single and len(files) > 1:
            raise stop(f"{len(files)} images do not go into one file, {out}")
        targets = [out if single else out / target_name(file, suffix, kind) for file in files]
        if clash := sorted({str(t) for t in targets if targets.count(t) > 1}):
            raise stop(f"two images would be written to {clash[0]}")
        failed = 0
        with bar() as progress:
            whole = progress.add_task("images", total=len(files))
            for file, target in zip(files, targets, strict=True):
                part = progress.add_task(file.name, total=None)
                try:
                    picture = read_picture(file)
                    tiling = tiling_of(*picture.color.shape[1:])
                    cast = torch.autocast(device_type(model), torch.bfloat16, enabled=bf16)
                    with cast:
                        color, opacity = enlarge_picture(
                            model,
                            picture,
                            alpha=alpha,
                            tiling=tiling,
                            ensemble=ensemble,
                            edge=edge,
                            progress=lambda boxes, part=part: progress.track(boxes, task_id=part),
                        )
                        seam = None
                        if tiling is not None:
                            rgb = picture.color.expand(model.channels, -1, -1)
                            seam = seam_error(model, rgb[None], tiling)
                    write_picture(
                        target, color, alpha=opacity, bits=picture.bits, info=picture.info
                    )
                    if seam is not None:
                        console.print(seam_note(file.name, tiling, seam), highlight=False)
                except (OSError, ValueError, TypeError, RuntimeError) as error:
                    failed += 1
                    message = str(error) if str(file) in str(error) else f"{file}: {error}"
                    stop(message.splitlines()[0])
                finally:
                    progress.remove_task(part)
                    progress.advance(whole)
        console.print(f"{len(files) - failed} of {len(files)} written to {out}", highlight=False)
        if failed:
            raise typer.Exit(BAD_INPUT)

    @app.command()
    def evaluate(
        hr: Annotated[Path, typer.Option(help="Folder or .lmdb of high-resolution images.")],
        checkpoint: Checkpoint,
        lr: Annotated[
            Path | None, typer.Option(help="Their low-resolution side; bicubic by default.")
        ] = None,
        tile: TileSide = "0",
        halo: Halo = 32,
        ensemble: Ensemble = False,
        device: Device = "auto",
        bf16: Half = False,
        template: Annotated[
            str | None, typer.Option(help="Name of an LR file, such as {}x{scale}.")
        ] = None,
        noise: Annotated[
            float, typer.Option(help="Spoil LR by Gaussian noise of this deviation, of 255.")
        ] = 0.0,
        jpeg: Annotated[
            int | None, typer.Option(help="Spoil LR by JPEG compression of this quality.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    ) -> None:
        """PSNR and SSIM per image and their mean, beside what is there without the network."""
        import torch

        from image_restoration_kit.data import PairedImages, Spoil
        from image_restoration_kit.enlarge import enlarge
        from image_restoration_kit.metrics import psnr, quantise, ssim
        from image_restoration_kit.resize import resize

        model = network(checkpoint, device)
        try:
            tiling_of = tiling_choice(model, tile, halo)
            spoil = Spoil(noise=noise, jpeg=jpeg)
            data = PairedImages(hr, lr, scale=model.scale, template=template, spoil=spoil)
        except (OSError, ValueError) as error:
            raise stop(error) from error
        border = model.scale if model.scale > 1 else 0
        how: Any = {"border": border, "on_luma": on_luma}
        rows: dict[str, dict[str, float]] = {}
        with bar() as progress:
            for name in progress.track(data.hr.names, description="images"):
                try:
                    low, high = data.pair(name)
                    with torch.autocast(device_type(model), torch.bfloat16, enabled=bf16):
                        out = enlarge(
                            model,
                            low[None],
                            tiling=tiling_of(*low.shape[1:]),
                            ensemble=ensemble,
                        )[0]
                    truth = quantise(high)
                    plain = quantise(resize(low, model.scale))
                    rows[name] = {
                        "psnr": psnr(quantise(out), truth, **how),
                        "ssim": ssim(quantise(out), truth, **how),
                        f"{baseline}_psnr": psnr(plain, truth, **how),
                        f"{baseline}_ssim": ssim(plain, truth, **how),
                    }
                except (OSError, ValueError) as error:
                    raise stop(error) from error
        columns = ("psnr", "ssim", f"{baseline}_psnr", f"{baseline}_ssim")
        mean = {c: sum(row[c] for row in rows.values()) / len(rows) for c in columns}
        if as_json:
            typer.echo(json.dumps({"images": rows, "mean": mean}, indent=1))
            return
        channels = "Y channel" if on_luma else "RGB"
        table = Table(title=f"{channels}, x{model.scale}, {border} pixels of border left out")
        table.add_column("image")
        for title in ("PSNR / dB", "SSIM", f"{baseline} PSNR / dB", f"{baseline} SSIM"):
            table.add_column(title, justify="right")
        for title, row in [*rows.items(), ("mean", mean)]:
            table.add_row(
                title, *(f"{row[c]:.2f}" if "psnr" in c else f"{row[c]:.4f}" for c in columns)
            )
        console.print(table)

    @app.command()
    def prepare(
        hr: Annotated[Path, typer.Argument(help="Folder of high-resolution images.")],
        out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into.")],
        scale: Annotated[int, typer.Option(help="Of the low-resolution side.")] = 4,
        size: Annotated[
            int, typer.Option(help="Side of the sub-images; 0 keeps whole ones.")
        ] = 480,
        step: Annotated[int, typer.Option(help="From one sub-image to the next.")] = 240,
        lmdb: Annotated[bool, typer.Option("--lmdb", help="Write LMDBs as well.")] = False,
    ) -> None:
        """Write OUT/HR (sub-images), OUT/LRx4 (bicubic) and, if asked for, their LMDBs."""
        from image_restoration_kit.data import write_lmdb, write_shrunk, write_subimages
        from image_restoration_kit.images import find_images

        if scale < 2 or size < 0 or step < 1 or size % scale:
            raise stop(f"scale={scale}, size={size}, step={step}: size is a multiple of scale")
        try:
            files, folder = find_images([hr]), hr
            with bar() as progress:
                if size:
                    folder = out / "HR"
                    write_subimages(
                        progress.track(files, description="sub-images"),
                        folder,
                        size=size,
                        step=step,
                    )
                    files = find_images([folder])
                small = out / f"LRx{scale}"
                count = write_shrunk(progress.track(files, description="shrinking"), small, scale)
                if lmdb:
                    for place in (folder, small):
                        write_lmdb(find_images([place]), out / f"{place.name}.lmdb")
        except (OSError, ValueError) as error:
            raise stop(error) from error
        console.print(f"{count} pairs in {out}", highlight=False)

    @app.command()
    def show(checkpoint: Annotated[Path, typer.Argument(help="Weights.")]) -> None:
        """What a file of weights is: scale, sizes, parameters."""
        model = network(checkpoint, "cpu")
        count = sum(parameter.numel() for parameter in model.parameters())
        console.print(
            f"{type(model).__name__} x{model.scale}, {count:,} parameters, sides a multiple of "
            f"{model.multiple} (padded for you)\n{model.config}",
            highlight=False,
        )

    return app


def tiling_choice(model: Any, tile: str, halo: int) -> Callable[[int, int], Any]:
    """From the option: height and width -> the tiling, or ``None``.

    Raises:
        ValueError: for no number, or one that is not a multiple of the window.
    """
    from image_restoration_kit.enlarge import Tiling, automatic_tiling

    if tile == "auto":
        return lambda height, width: automatic_tiling(model, height, width)
    if not tile.isdecimal():
        raise ValueError(f"--tile {tile}: must be auto, 0 or a number of pixels")
    if not int(tile):
        return lambda height, width: None
    tiling = Tiling(tile=int(tile), halo=halo)
    tiling.check(model.multiple)
    return lambda height, width: tiling


def target_name(file: Path, suffix: str, kind: str) -> str:
    """The output's name for an input's."""
    extension = file.suffix if kind == "auto" else f".{kind.lstrip('.')}"
    return f"{file.stem}{suffix}{extension}"


def seam_note(name: str, tiling: Any, seam: Any) -> str:
    """What the tiles changed, in one line."""
    if math.isinf(seam.psnr):
        return f"{name}: tiles of {tiling.tile} with a halo of {tiling.halo}, as the whole image"
    return (
        f"{name}: tiles of {tiling.tile} with a halo of {tiling.halo}; at a seam they differ from "
        f"the whole image by {seam.psnr:.1f} dB, at most {255 * seam.largest:.1f}/255"
    )


def device_type(model: Any) -> str:
    return next(iter(model.parameters())).device.type
