"""R²T as its equations are written: the logits stand in memory. To test against and race."""

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rrt_mil.attention import CrossRegionAttention, EPEGAttention
from rrt_mil.encoder import R2T, Layer
from rrt_mil.model import R2TMIL, R2TMILConfig


class LiteralEPEGAttention(EPEGAttention):
    """EPEG as a convolution of the logits, tokens x tokens of them for each region and head."""

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, exists: Tensor | None
    ) -> Float[Tensor, "rows tokens dim"]:
        query, key, value = map(self.split, (query, key, value))
        logits = query * query.shape[-1] ** -0.5 @ key.mT
        logits = logits + nn.functional.conv2d(
            logits, self.taps, self.bias, padding=(self.taps.shape[2] // 2, 0), groups=self.heads
        )
        weights = logits.softmax(-1)
        return rearrange(weights @ value, "rows heads tokens dim -> rows tokens (heads dim)")


class LiteralCrossRegionAttention(CrossRegionAttention):
    """CR-MSA with every weighted token of every representative in memory."""

    def forward(
        self, x: Float[Tensor, "bags instances dim"], mask: Tensor | None = None
    ) -> Float[Tensor, "bags instances dim"]:
        regions, _, join = self.LAYOUT.cut(x)
        logits = rearrange(self.phi(regions), "bags regions tokens k -> bags regions k tokens")
        combine, dispatch = logits.softmax(-1), logits.softmax(-2)
        low, high = logits.amin(-1, keepdim=True), logits.amax(-1, keepdim=True)
        scaled = (logits - low) / (high - low + 1e-8)
        gathered = torch.einsum("brkt,brtd->brktd", combine, regions).sum(3)
        rows = rearrange(gathered, "bags regions k dim -> (bags k) regions dim")
        split = "(bags k) regions dim -> bags regions k dim"
        mixed = rearrange(self.attention(rows), split, bags=x.shape[0])
        spread = torch.einsum("brkd,brkt->brktd", mixed, scaled)
        return join(torch.einsum("brktd,brkt->brktd", spread, dispatch).sum(2))


def literal(model: R2T) -> R2T:
    """Turn the attentions of ``model`` into their literal forms, in place; weights stay."""
    for layer in [*model.layers, *([model.cross] if model.cross is not None else [])]:
        attention = cast(Layer, layer).attention
        if isinstance(attention, CrossRegionAttention):
            attention.__class__ = LiteralCrossRegionAttention
        elif isinstance(inner := cast(nn.Module, attention.attention), EPEGAttention):
            inner.__class__ = LiteralEPEGAttention
    return model


def literal_mil(config: R2TMILConfig) -> R2TMIL:
    """A classifier whose R²T is literal: the race's other side."""
    model = R2TMIL(config)
    for encoder in (model.encoder, model.instance_encoder):
        if encoder is not None:
            literal(encoder)
    return model
