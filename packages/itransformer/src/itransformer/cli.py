"""``itransformer train | evaluate | predict | import``."""

from pathlib import Path
from typing import Annotated, Any

from attention_core import needs_extra


def main() -> None:
    """Run the command line; it needs the extra ``data``."""
    with needs_extra("itransformer", "data"):
        from forecasting_kit.commands import forecasting_app
    from itransformer.forecaster import Forecaster

    forecasting_app("itransformer", Forecaster, network=_network(), official=_official())()


def _network() -> Any:
    import typer

    def network(
        d_model: Annotated[int, typer.Option(help="Width of a token.")] = 512,
        d_ff: Annotated[
            int | None, typer.Option(help="Width of the feed-forward network; d-model by default.")
        ] = None,
        layers: Annotated[int, typer.Option(help="Encoder layers.")] = 3,
        heads: Annotated[int, typer.Option(help="Attention heads.")] = 8,
        dropout: float = 0.1,
        activation: Annotated[str, typer.Option(help="gelu or relu.")] = "gelu",
        attention: Annotated[str, typer.Option(help="full, flow, prob or lsh.")] = "full",
        use_norm: Annotated[bool, typer.Option(help="Standardise each window.")] = True,
    ) -> dict[str, Any]:
        return {
            "dim": d_model,
            "feed_forward": d_ff or d_model,
            "layers": layers,
            "heads": heads,
            "dropout": dropout,
            "activation": activation,
            "attention": attention,
            "use_norm": use_norm,
        }

    return network


def _official() -> Any:
    import typer

    from itransformer.model import ITransformer

    def official(
        checkpoint: Path,
        heads: Annotated[int, typer.Option(help="n_heads of the run.")] = 8,
        use_norm: Annotated[bool, typer.Option(help="Whether the run normalised windows.")] = True,
        marks: Annotated[int, typer.Option(help="Time features per step; 0 for none.")] = 4,
        activation: Annotated[str, typer.Option(help="gelu or relu.")] = "gelu",
        attention: Annotated[
            str | None, typer.Option(help="full, flow or prob; the file shows lsh.")
        ] = None,
        factor: Annotated[int, typer.Option(help="Of prob attention.")] = 1,
    ) -> ITransformer:
        return ITransformer.from_official(
            checkpoint,
            heads=heads,
            use_norm=use_norm,
            marks=marks,
            activation=activation,
            attention=attention,
            factor=factor,
        )

    return official
