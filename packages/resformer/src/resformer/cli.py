"""The command line: predict, and import the authors' weights."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="ResFormer: Scaling ViTs with Multi-Resolution Training",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the script."""
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        Console(stderr=True).print(
            f"error: {' '.join(str(error).split())}", markup=False, highlight=False, soft_wrap=True
        )
        raise SystemExit(2) from error


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="An array [samples, tokens, channels], .npy.")],
    weights: Annotated[Path, typer.Option(help="A folder that save_pretrained wrote.")],
    device: str = "cpu",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Print the class of each sample."""
    import numpy as np
    import torch

    from resformer.model import Resformer

    model = Resformer.from_pretrained(weights).to(device)
    array = np.load(file, allow_pickle=False)
    if array.ndim != 3 or array.shape[2] != model.config.channels:
        raise ValueError(
            f"{file} has the shape {list(array.shape)}; "
            f"the model takes [samples, tokens, {model.config.channels}]"
        )
    with torch.inference_mode():
        logits = model(torch.from_numpy(array).float().to(device))
    classes = logits.argmax(-1).tolist()
    print(json.dumps(classes) if as_json else "\n".join(map(str, classes)))


@app.command("import")
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' file.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    heads: Annotated[int, typer.Option(help="Of attention: the file does not tell.")] = 4,
) -> None:
    """Turn the authors' checkpoint into a folder that from_pretrained reads."""
    from resformer.model import Resformer

    Resformer.from_official(checkpoint, heads=heads).save_pretrained(output)
    print(output)


if __name__ == "__main__":
    main()
