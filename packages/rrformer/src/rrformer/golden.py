"""The recorded runs of the authors' code."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attention_core import GoldenCase, rename
from torch import Tensor

from rrformer import losses
from rrformer.features import VGG19
from rrformer.model import RRFormer
from rrformer.official import generator, name


def golden(case: GoldenCase) -> Mapping[str, Any]:
    """Run a golden case: the network, or its losses."""
    return _losses(case) if "losses" in case.record["outputs"] else _network(case)


def _network(case: GoldenCase) -> dict[str, Any]:
    given, state = case.config, case.state_dict()
    bypass = "no transformer parameter affects" in case.record.get("notes", "")
    body = given.get("body", "bypass" if bypass or "released" in case.name else "residual")
    model = RRFormer.from_official(state, heads=given["heads"][0], body=body)
    model = model.to(case.dtype).train(case.record["mode"] == "train")
    image = case.inputs()["image"].to(case.dtype).requires_grad_()
    height, width = case.record["outputs"]["out"]["shape"][2:]
    out = model.uncropped(image)[..., :height, :width]
    out.square().mean().backward()
    found: dict[str, Any] = {"out": out, "grad:input": image.grad}
    weights = dict(model.named_parameters())
    prefix = next(key for key in state if key.endswith("conv1.conv2d.weight"))
    prefix = prefix.removesuffix("conv1.conv2d.weight")
    for key in generator(state):
        if (ours := name(key)) in weights:
            found[f"grad:{prefix}{key}"] = weights[ours].grad
    return found


def _losses(case: GoldenCase) -> dict[str, Any]:
    state, images = case.state_dict(), case.inputs()
    vgg, judge = VGG19(30).to(case.dtype), losses.Discriminator().to(case.dtype)
    vgg.load({key: value for key, value in state.items() if key.startswith("vgg.")})
    judge.load_state_dict(rename(state, _judge))
    output, target = (images[kind].to(case.dtype) for kind in ("output", "target"))
    with torch.no_grad():
        fake, real = judge(output), judge(target)
        found: list[Tensor] = [
            F.mse_loss(output, target),
            losses.gradient_loss(output, target),
            losses.pixel_loss(output, target),
            losses.feature_loss(vgg, output, target),
            losses.unaligned_loss(vgg, output, target),
            losses.relative_loss(real, fake, generator=True),
            losses.relative_loss(real, fake, generator=False),
        ]
    return {"losses": torch.stack(found), "disc_logits": torch.cat([fake, real])}


def _judge(key: str) -> str | None:
    """The discriminator's body and tail, one after the other here."""
    part, _, rest = key.removeprefix("netD.").partition(".")
    if not key.startswith("netD."):
        return None
    place, _, kind = rest.partition(".")
    return f"{int(place) + (29 if part == 'tail' else 0)}.{kind}"
