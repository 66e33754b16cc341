"""R²T: re-embeds the instance features of a bag before any aggregator."""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    PaperModel,
    read_checkpoint,
    require,
    require_choice,
    require_fraction,
    require_positive,
)
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from rrt_mil.attention import CrossRegionAttention, RegionalAttention, Selection
from rrt_mil.regions import Layout


@dataclass(frozen=True, kw_only=True)
class R2TConfig:
    """Sizes of R²T; the last group is the paper's ablations, by default as published."""

    dim: int = 512
    """Width of an instance."""
    layers: int = 2
    """R-MSA layers and the CR-MSA layer that comes last."""
    regions: int = 8
    """Regions per side in R-MSA; CR-MSA always has 8. More regions, less memory in long bags."""
    heads: int = 8
    """Of R-MSA."""
    epeg_k: int = 15
    """Taps of the position encoding; odd."""
    crmsa_k: int = 3
    """Representatives per region."""
    crmsa_heads: int = 8
    crmsa_mlp: bool = False
    """Whether representatives are chosen by a small network instead of a matrix."""
    shortcut: bool = False
    """Whether the input is added to the output, before the last norm."""
    dropout: float = 0.1
    """After the output projection of an attention."""
    drop_path: float = 0.0
    """Rate at which a residual branch is dropped for a whole bag."""

    cr_msa: bool = True
    epeg: str = "logits"
    """``logits``, ``value`` (encoded values are attended to), ``output`` (encoded values are added
    to the output) or ``none``."""
    epeg_2d: bool = False
    epeg_bias: bool = True
    """Of ``value`` and ``output``; on logits a bias does nothing."""
    mlp_ratio: float | None = None
    """Hidden over outer width of a feed-forward network per layer; none by default."""
    mlp_activation: str = "gelu"
    qkv_bias: bool = True
    region_size: int | None = None
    """Side of a region in R-MSA, instead of ``regions``."""
    least_instances: int = 0
    """A bag with fewer is a single region in R-MSA."""
    least_fill: float = 0.0
    """A bag with more than instances / least_fill of padding is a single region in R-MSA."""
    position: str = "none"
    """``peg`` or ``ppeg``: depth-wise convolutions of the bag's square, before the second R-MSA."""
    position_first: bool = False
    """Whether they come before the first one instead."""
    position_k: int = 7
    position_1d: bool = False
    position_bias: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "dim", "layers", "regions", "heads", "epeg_k", "crmsa_k")
        require_positive(self, "crmsa_heads", "position_k")
        for heads in ("heads", "crmsa_heads"):
            divides = self.dim % getattr(self, heads) == 0
            require(self, heads, divides, f"must divide dim={self.dim}")
        for kernel in ("epeg_k", "position_k"):
            require(self, kernel, getattr(self, kernel) % 2 == 1, "must be odd")
        require_fraction(self, "dropout", "drop_path")
        require_choice(self, "epeg", ("logits", "value", "output", "none"))
        require_choice(self, "mlp_activation", ("gelu", "relu"))
        require_choice(self, "position", ("none", "peg", "ppeg"))
        for name in ("least_instances", "least_fill"):
            require(self, name, getattr(self, name) >= 0, "must be 0 or more")
        if self.region_size is not None:
            require_positive(self, "region_size")
        if self.mlp_ratio is not None:
            require(self, "mlp_ratio", self.mlp_ratio * self.dim >= 1, "must be positive, or none")

    @property
    def layout(self) -> Layout:
        """The regions of R-MSA."""
        return Layout(
            regions=self.regions,
            region_size=self.region_size,
            least_instances=self.least_instances,
            least_fill=self.least_fill,
        )


VARIANTS = {
    "r2t": R2TConfig(),
    "r2t_c16_r50": R2TConfig(crmsa_k=1, shortcut=True),
    "r2t_c16_plip": R2TConfig(epeg_k=9, shortcut=True),
    "r2t_nsclc_r50": R2TConfig(epeg_k=21, crmsa_k=5),
    "r2t_nsclc_plip": R2TConfig(epeg_k=13, crmsa_heads=1, crmsa_mlp=True, shortcut=True),
    "r2t_brca_r50": R2TConfig(epeg_k=17, crmsa_heads=1),
    "r2t_brca_plip": R2TConfig(crmsa_k=1, shortcut=True),
    "r2t_survival": R2TConfig(regions=16),
}
"""The published configurations of the re-embedding layer, ``r2t_<data set>_<features>``."""


class Layer(nn.Module):
    """A pre-norm residual layer: an attention, and a feed-forward network if there is one."""

    def __init__(self, config: R2TConfig, attention: nn.Module) -> None:
        super().__init__()
        self.drop_path = config.drop_path
        self.norm = nn.LayerNorm(config.dim)
        self.attention = attention
        self.mlp: nn.Module | None = None
        if config.mlp_ratio is not None:
            hidden = int(config.dim * config.mlp_ratio)
            self.mlp = nn.Sequential(
                nn.LayerNorm(config.dim),
                nn.Linear(config.dim, hidden),
                nn.GELU() if config.mlp_activation == "gelu" else nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(hidden, config.dim),
                nn.Dropout(config.dropout),
            )

    def forward(
        self, x: Float[Tensor, "bags instances dim"], mask: Bool[Tensor, "bags instances"] | None
    ) -> Float[Tensor, "bags instances dim"]:
        x = x + self.drop(self.attention(self.norm(x), mask))
        return x if self.mlp is None else x + self.drop(self.mlp(x))

    def drop(self, branch: Float[Tensor, "bags instances dim"]) -> Tensor:
        """Stochastic depth: in training, some bags go without this branch."""
        if not (self.training and self.drop_path):
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1 - self.drop_path)


class PositionEncoding(nn.Module):
    """PEG or PPEG: depth-wise convolutions of the bag's square, added to it (ablation).

    The square is filled up with the bag's first instances; PPEG's is at least 7 x 7, with zeros.
    """

    LEAST_SIDE = 7

    def __init__(self, config: R2TConfig) -> None:
        super().__init__()
        self.pyramid = config.position == "ppeg"
        kernels = (config.position_k, 5, 3) if self.pyramid else (config.position_k,)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(
                config.dim,
                config.dim,
                (k, 1) if config.position_1d else k,
                padding=(k // 2, 0) if config.position_1d else k // 2,
                groups=config.dim,
                bias=config.position_bias,
            )
            for k in kernels
        )

    def forward(
        self, x: Float[Tensor, "bags instances dim"], mask: Bool[Tensor, "bags instances"] | None
    ) -> Float[Tensor, "bags instances dim"]:
        if mask is not None:
            raise ValueError("PEG and PPEG take no mask: give a list of bags instead")
        instances = x.shape[1]
        side, _ = Layout(region_size=1).grid(instances)
        filled = torch.cat([x, x[:, : side * side - instances]], 1)
        if self.pyramid and side < self.LEAST_SIDE:
            filled = F.pad(filled, (0, 0, 0, self.LEAST_SIDE**2 - side * side))
            side = self.LEAST_SIDE
        picture = rearrange(filled, "bags (y x) dim -> bags dim y x", y=side)
        picture = sum((conv(picture) for conv in self.convolutions), start=picture)
        return rearrange(picture, "bags dim y x -> bags (y x) dim")[:, :instances]


class R2T(PaperModel):
    """Re-embeds the instances of a bag in the light of their neighbours and of the whole bag.

    It stands between the projection of a multiple-instance classifier and its aggregator; instances
    keep their order and width. Order matters: neighbours in the file are neighbours here.
    """

    variants = VARIANTS

    def __init__(self, config: R2TConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(
            Layer(config, RegionalAttention(config)) for _ in range(config.layers - 1)
        )
        self.cross = Layer(config, CrossRegionAttention(config)) if config.cr_msa else None
        self.position = PositionEncoding(config) if config.position != "none" else None
        self.norm = nn.LayerNorm(config.dim)
        initialise(self)

    @classmethod
    def from_official(cls, checkpoint: Checkpoint, **settings: Any) -> Self:
        """The layer of an ``RRTEncoder`` state dict, or of any model of the authors that holds one.

        Args:
            checkpoint: the file, or its state dict.
            settings: fields of `R2TConfig` that the tensors can't tell: ``shortcut``,
                ``crmsa_heads``, ``regions``, ``heads`` (when there is no EPEG on logits),
                ``dropout`` and the ablations. Widths, depth, taps and representatives are read off.

        Raises:
            CheckpointError: naming every missing, unexpected or mis-shaped entry.
        """
        from rrt_mil.official import convert_encoder, encoder_state

        return cls.from_state(
            *convert_encoder(encoder_state(read_checkpoint(checkpoint)), **settings)
        )

    def forward(
        self,
        x: Float[Tensor, "..."] | list[Tensor],
        mask: Shaped[Tensor, "*bags instances"] | None = None,
    ) -> Float[Tensor, "..."] | list[Tensor]:
        """Re-embed bags; each is computed on its own.

        Args:
            x: [instances, dim], [bags, instances, dim], a square picture [bags, dim, side, side],
                or a list of bags [instances, dim] of any lengths.
            mask: true (or 1) where an instance of a padded batch is real; the others come out as
                they went in.

        Returns:
            The same shape (for a list, a list).

        Raises:
            ValueError: for an empty bag, another width, a picture that is not square, or a mask of
                another shape.
        """
        if mask is not None and (isinstance(x, list | tuple) or x.ndim == 4):
            raise ValueError("a mask goes with a padded batch [bags, instances, dim] only")
        if isinstance(x, list | tuple):
            return [self(bag) for bag in x]
        if x.ndim == 4:
            if x.shape[2] != x.shape[3]:
                raise ValueError(f"x has shape {list(x.shape)}: a picture must be square")
            flat = rearrange(x, "bags dim y x -> bags (y x) dim")
            return rearrange(self(flat), "bags (y x) dim -> bags dim y x", y=x.shape[2])
        if x.ndim == 2:
            return self(x[None], None if mask is None else mask[None])[0]
        mask = check_bags(x, self.config.dim, mask)
        h = x
        if self.position is not None and self.config.position_first:
            h = self.position(h, mask)
        for index, layer in enumerate(self.layers):
            if self.position is not None and index == 1 and not self.config.position_first:
                h = self.position(h, mask)
            h = layer(h, mask)
        if self.cross is not None:
            h = self.cross(h, mask)
        h = self.norm(h + x if self.config.shortcut else h)
        return h if mask is None else torch.where(mask[..., None], h, x)


def check_bags(x: Tensor, width: int, mask: Tensor | None) -> Tensor | None:
    """``mask`` as booleans.

    Raises:
        ValueError: unless ``x`` is [bags, instances >= 1, width] and ``mask`` fits.
    """
    if x.ndim != 3 or x.shape[-1] != width:
        raise ValueError(
            f"bags have shape {list(x.shape)}: must be [bags, instances, {width}], for this model "
            f"takes features of width {width}"
        )
    if not x.shape[1]:
        raise ValueError("an empty bag: it must have at least one instance")
    if mask is None:
        return None
    mask = mask.bool()
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask has shape {list(mask.shape)}: must be {list(x.shape[:2])}")
    if not torch.compiler.is_compiling() and mask.device.type != "meta" and not mask.any(1).all():
        empty = (~mask.any(1)).nonzero().flatten().tolist()
        raise ValueError(f"empty bags in the batch, at {empty}: each needs at least one instance")
    return mask


def initialise(module: nn.Module) -> None:
    """Xavier-normal weights and zero biases, as the authors train."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and not isinstance(part, Selection):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
