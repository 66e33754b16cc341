"""``rrformer remove | evaluate | benchmark | import | show``."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

from attention_core import needs_extra, one_line_errors, write_text

DIGITS = {"psnr": 2, "ssim": 4, "lpips": 4}


def main() -> None:
    """Run the command line; it needs the extra ``images``."""
    with needs_extra("rrformer", "images"):
        from image_restoration_kit.commands import restoration_app
    from rrformer.model import RRFormer

    app = restoration_app(
        "rrformer",
        RRFormer.load,
        verb="remove",
        help="Reflection removal; remove and evaluate take folders that import wrote.",
        on_luma=False,
    )
    app.command("import")(_import())
    app.command("benchmark")(_benchmark())
    app()


def _import() -> Any:
    import typer

    def import_(
        checkpoint: Annotated[Path, typer.Argument(help="The authors' errnet_*.pt.")],
        out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write.")],
        vgg: Annotated[Path | None, typer.Option(help="torchvision's vgg19-dcbb9e9d.pth.")] = None,
        body: Annotated[
            str, typer.Option(help="residual (the paper) or bypass (the released code).")
        ] = "residual",
    ) -> None:
        """Put the authors' weights and VGG-19 into one folder that the other commands read."""
        from rrformer.model import RRFormer

        with one_line_errors():
            RRFormer.from_official(checkpoint, vgg=vgg, body=body).save_pretrained(out)
        print(f"written: {out}")

    return import_


def _benchmark() -> Any:
    import typer

    def benchmark(
        predictions: Annotated[Path, typer.Argument(help="Folder of anybody's predictions.")],
        truths: Annotated[Path, typer.Argument(help="Folder of the transmissions.")],
        lpips: Annotated[bool, typer.Option("--lpips", help="LPIPS too, where at hand.")] = False,
        out: Annotated[Path | None, typer.Option("-o", "--out", help="Write JSON.")] = None,
    ) -> None:
        """PSNR, SSIM and LPIPS of 4K and 8K predictions, strip by strip."""
        from rich.console import Console
        from rich.progress import track
        from rich.table import Table

        from rrformer.benchmark import benchmark as run
        from rrformer.benchmark import load_lpips, pairs

        errors = Console(stderr=True)
        try:
            measure = load_lpips() if lpips else None
        except RuntimeError as error:
            errors.print(f"warning: {error}", markup=False, highlight=False, soft_wrap=True)
            measure = None
        with one_line_errors():
            found = pairs(predictions, truths)
            scores = run(track(found, "images", console=errors), measure)
        table = Table("image", "PSNR / dB", "SSIM", "LPIPS")
        rows = {name: vars(score) for name, score in scores.items()}
        for name, row in rows.items():
            table.add_row(name, *_cells(row))
        finite = {
            k: [r[k] for r in rows.values() if r[k] is not None] for k in ("psnr", "ssim", "lpips")
        }
        mean = {k: sum(v) / len(v) if v else None for k, v in finite.items()}
        table.add_row(f"mean of {len(rows)}", *_cells(mean))
        Console().print(table)
        if out is not None:
            write_text(out, json.dumps({"images": rows, "mean": mean}, indent=1))

    return benchmark


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        "-" if row[name] is None or math.isnan(row[name]) else f"{row[name]:.{digits}f}"
        for name, digits in DIGITS.items()
    ]
