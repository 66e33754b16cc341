"""``gateformer train | evaluate | predict | import | explain``."""

from pathlib import Path
from typing import Annotated, Any

from attention_core import needs_extra, write_text


def main() -> None:
    """Run the command line; it needs the extra ``data``."""
    with needs_extra("gateformer", "data"):
        from forecasting_kit.commands import forecasting_app
    from gateformer.forecaster import Forecaster

    forecasting_app(
        "gateformer", Forecaster, network=_network(), official=_official(), more=[_explain()]
    )()


def _network() -> Any:
    import typer

    def network(
        patch_len: Annotated[int, typer.Option(help="Steps of a patch.")] = 8,
        stride: Annotated[int, typer.Option(help="Steps from one patch to the next.")] = 8,
        d_model: Annotated[int, typer.Option(help="Width of a token.")] = 64,
        d_ff: Annotated[
            int | None, typer.Option(help="Width of the feed-forward network; d-model by default.")
        ] = None,
        layers: Annotated[int, typer.Option(help="Of each of the two encoders.")] = 1,
        heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
        dropout: float = 0.1,
    ) -> dict[str, Any]:
        return {
            "patch": patch_len,
            "stride": stride,
            "dim": d_model,
            "feed_forward": d_ff or d_model,
            "layers": layers,
            "heads": heads,
            "dropout": dropout,
        }

    return network


def _official() -> Any:
    import typer

    from gateformer.model import Gateformer

    def official(
        checkpoint: Path,
        heads: Annotated[int, typer.Option(help="n_heads of the run.")] = 8,
        stride: Annotated[
            int | None, typer.Option(help="Where the file's patches fit several.")
        ] = None,
    ) -> Gateformer:
        return Gateformer.from_official(checkpoint, heads=heads, stride=stride)

    return official


def _explain() -> Any:
    import json

    import typer
    from forecasting_kit.commands import Bundle, Data, Device, Kind, Root, out

    def explain(
        bundle: Bundle,
        data: Data,
        split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
        windows: Annotated[int, typer.Option(help="Evenly spaced ones to look at.")] = 64,
        out_: Annotated[
            Path | None, typer.Option("--out", help="Write the shares as JSON.")
        ] = None,
        plot: Annotated[Path | None, typer.Option(help="Write a picture of them.")] = None,
        root: Root = Path("data"),
        kind: Kind = None,
        device: Device = None,
    ) -> None:
        """Tell what each column's forecast comes from: its patches, its window, the others."""
        from forecasting_kit import load_data
        from forecasting_kit.plots import save_figure
        from rich.table import Table

        from gateformer.forecaster import Forecaster
        from gateformer.pictures import plot_gates

        model = Forecaster.load(bundle, device=device)
        shares = model.explain(load_data(data, root=root, kind=kind), split, windows=windows)
        table = Table("column", "whole window", "patches", "itself", "all columns")
        for name, share in shares.items():
            whole, own = share["whole_window"], share["own"]
            table.add_row(name, *(f"{s:.2f}" for s in (whole, 1 - whole, own, 1 - own)))
        out.print(table)
        if out_ is not None:
            write_text(out_, json.dumps(shares, indent=1))
        if plot is not None:
            save_figure(plot_gates(shares), plot)

    return explain
