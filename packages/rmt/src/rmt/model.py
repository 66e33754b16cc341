"""RMT: Retentive Networks Meet Vision Transformers (Fan et al., CVPR 2024)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from attention_core import (
    GELU,
    Checkpoint,
    PaperModel,
    TokenLinear,
    read_checkpoint,
    renew_heads,
    replace,
    require,
    require_fraction,
    require_positive,
)
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rmt.attention import Decay, Geometry, ManhattanAttention
from rmt.convolution import ConvNorm, DepthwiseConv, to_image, to_map
from rmt.token_labels import draw_box, inside, swap

SMALLEST, SMALL = 4, 32
"""Pixels a side that the network takes at least, and below which it warns."""
TOKEN_LOGITS_WEIGHT = 0.5
"""Share of the best token's logits in a token-labelling model's prediction."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of stem and stages; the entries of each tuple belong to the stages (Table 9)."""

    channels: int = 3
    """Of the images."""
    dims: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 8, 2)
    heads: tuple[int, ...] = (4, 4, 8, 16)
    mlp_ratios: tuple[float, ...] = (3, 3, 3, 3)
    decay_start: tuple[float, ...] = (2, 2, 2, 2)
    """a of Eq. 3; 64 switches the decay of a stage off."""
    decay_spread: tuple[float, ...] = (4, 4, 6, 6)
    """b - a of Eq. 3."""
    decomposed: tuple[bool, ...] = (True, True, False, False)
    """Attention along rows, then columns (Eq. 6), instead of over the whole map."""
    layer_scale: tuple[bool, ...] = (False, False, False, False)
    layer_scale_init: float = 1e-6
    drop_path: float = 0.1
    """Stochastic depth of the last block; it grows linearly from 0 at the first."""

    def __post_init__(self) -> None:
        require_positive(self, "channels", "dims", "depths", "heads")
        require_fraction(self, "drop_path")
        require(self, "layer_scale_init", self.layer_scale_init > 0, "must be positive")
        for field in fields(EncoderConfig):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                equal = len(value) == len(self.dims)
                require(self, field.name, equal, f"needs {len(self.dims)} entries, as dims has")
        for dim, heads in zip(self.dims, self.heads, strict=True):
            even = dim % heads == 0 and dim // heads % 2 == 0
            require(self, "dims", even, f"{dim} over {heads} heads is not an even head size")
        require(self, "dims", self.dims[0] % 2 == 0, "the stem needs an even first entry")
        require(self, "mlp_ratios", min(self.mlp_ratios) > 0, "must be positive")
        require(self, "decay_start", min(self.decay_start) > 0, "must be positive")
        require(self, "decay_spread", min(self.decay_spread) >= 0, "must be at least 0")


@dataclass(frozen=True, kw_only=True)
class RMTConfig(EncoderConfig):
    """The classifier: encoder, projection and class head."""

    classes: int = 1000
    """0: the model returns its pooled feature."""
    projection: int = 1024
    """Size of the pooled feature."""
    dropout: float = 0.0
    """On the pooled feature, before the class head."""
    token_labels: bool = False
    """A second head that labels every token of the last stage (RMT*)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "projection")
        require_fraction(self, "dropout")
        require(self, "classes", self.classes >= 0, "must be at least 0")
        heads = self.classes > 0 or not self.token_labels
        require(self, "token_labels", heads, "needs classes")


@dataclass(frozen=True, kw_only=True)
class RMTBackboneConfig(EncoderConfig):
    """The encoder for dense prediction."""

    out_indices: tuple[int, ...] = (0, 1, 2, 3)
    """Stages whose maps are returned."""
    frozen_batch_norm: bool = False
    """Keep the batch norms' statistics and weights as they are in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = range(len(self.dims))
        inside = bool(self.out_indices) and all(i in known for i in self.out_indices)
        rising = list(self.out_indices) == sorted(set(self.out_indices))
        require(self, "out_indices", inside and rising, f"must rise, from {list(known)}")


_TINY: dict[str, Any] = {}
_SMALL: dict[str, Any] = {
    "depths": (3, 4, 18, 4), "mlp_ratios": (4, 4, 3, 3),
    "decomposed": (True, True, True, False), "drop_path": 0.15,
}  # fmt: skip
_BASE: dict[str, Any] = {
    "dims": (80, 160, 320, 512), "depths": (4, 8, 25, 8), "heads": (5, 5, 10, 16),
    "mlp_ratios": (4, 4, 3, 3), "decay_spread": (5, 5, 6, 6),
    "decomposed": (True, True, True, False), "layer_scale": (False, False, True, True),
    "drop_path": 0.4,
}  # fmt: skip
_LARGE: dict[str, Any] = {
    **_BASE, "dims": (112, 224, 448, 640), "heads": (7, 7, 14, 20),
    "decay_spread": (6, 6, 6, 6), "drop_path": 0.5,
}  # fmt: skip
_SIZES = {"rmt_t": _TINY, "rmt_s": _SMALL, "rmt_b": _BASE, "rmt_l": _LARGE}

VARIANTS: dict[str, RMTConfig] = {
    **{name: RMTConfig(**sizes) for name, sizes in _SIZES.items()},
    **{
        f"{name}_token_label": RMTConfig(**sizes, token_labels=True)
        for name, sizes in _SIZES.items()
        if name != "rmt_t"
    },
}
"""The published classifiers (Table 9); ``_token_label`` are the paper's RMT*."""

BACKBONES: dict[str, RMTBackboneConfig] = {
    f"{name}_backbone": RMTBackboneConfig(**sizes) for name, sizes in _SIZES.items()
}
"""The published encoders of detectors and segmenters."""


class Block(nn.Module):
    """Position encoding, MaSA and feed-forward network, each added to the map (Fig. 3)."""

    def __init__(self, config: EncoderConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        dim = config.dims[stage]
        decay = Decay(config.heads[stage], config.decay_start[stage], config.decay_spread[stage])
        self.drop_path = drop_path
        self.position = DepthwiseConv(dim, 3, residual=True)
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attention = ManhattanAttention(dim, decay, decomposed=config.decomposed[stage])
        self.feed_forward_norm = nn.LayerNorm(dim, eps=1e-6)
        # A ratio that was read off a checkpoint is a quotient: the product may fall just short.
        self.feed_forward = FeedForward(dim, int(config.mlp_ratios[stage] * dim + 1e-6))
        self.attention_scale = self.feed_forward_scale = None
        if config.layer_scale[stage]:
            self.attention_scale = nn.Parameter(torch.full((dim,), config.layer_scale_init))
            self.feed_forward_scale = nn.Parameter(torch.full((dim,), config.layer_scale_init))

    def forward(
        self, x: Float[Tensor, "b h w dim"], shared: Geometry
    ) -> Float[Tensor, "b h w dim"]:
        x = self.position(x)
        x = self._add(x, self.attention(self.attention_norm(x), shared), self.attention_scale)
        return self._add(x, self.feed_forward(self.feed_forward_norm(x)), self.feed_forward_scale)

    def _add(self, x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
        """The residual connection: layer scale, and stochastic depth per image in training."""
        if self.training and self.drop_path:
            keep = x.new_empty(len(x), 1, 1, 1).bernoulli_(1 - self.drop_path)
            keep = keep / (1 - self.drop_path)
            scale = keep if scale is None else keep * scale
        return x + branch if scale is None else torch.addcmul(x, branch, scale)


class FeedForward(nn.Sequential):
    """Two linear layers with a depthwise convolution of the hidden map between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(
            TokenLinear(dim, hidden),
            GELU(),
            DepthwiseConv(hidden, 3, residual=True),
            TokenLinear(hidden, dim),
        )


class Stage(nn.Module):
    """Blocks over maps of one size, and the convolution that halves them for the next stage."""

    def __init__(self, config: EncoderConfig, stage: int) -> None:
        super().__init__()
        first, total = sum(config.depths[:stage]), sum(config.depths)
        rates = [config.drop_path * i / max(1, total - 1) for i in range(total)]
        self.checkpointing = False
        self.blocks = nn.ModuleList(
            Block(config, stage, rate) for rate in rates[first : first + config.depths[stage]]
        )
        last = stage == len(config.dims) - 1
        self.downsample = (
            None if last else ConvNorm(config.dims[stage], config.dims[stage + 1], stride=2)
        )

    def forward(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h w dim"]:
        """The stage's own output, before it is halved."""
        first: Any = self.blocks[0]
        shared = first.attention.geometry(x)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, shared, use_reentrant=False)
            else:
                x = block(x, shared)
        return x

    def halve(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h2 w2 dim2"]:
        """The next stage's input; an odd side is rounded up. The last stage leaves ``x`` as is."""
        if self.downsample is None:
            return x
        # A strided dense convolution runs, and trains, faster on planes than on channel-last maps.
        return to_map(self.downsample(to_image(x).contiguous())).contiguous()


class Encoder(PaperModel):
    """Stem and stages, which classifier and backbone share."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        half, dim = config.dims[0] // 2, config.dims[0]
        self.stem = nn.Sequential(
            ConvNorm(config.channels, half, stride=2),
            GELU(),
            ConvNorm(half, half),
            GELU(),
            ConvNorm(half, dim, stride=2),
            GELU(),
            ConvNorm(dim, dim),
        ).to(memory_format=torch.channels_last)
        self.stages = nn.ModuleList(Stage(config, i) for i in range(len(config.dims)))

    def embed(self, images: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b h w dim"]:
        """The stem's map, a quarter of the image a side (rounded up).

        Raises:
            ValueError: for another number of axes or channels, or sides below 4 pixels.
        """
        channels = self.config.channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(
                f"images of shape {list(images.shape)}: needs [batch, {channels}, height, width]"
            )
        side = min(images.shape[2:])
        if side < SMALLEST:
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels: "
                f"needs at least {SMALLEST} a side"
            )
        if side < SMALL and not torch.compiler.is_compiling():
            warnings.warn(
                f"images of {images.shape[2]} x {images.shape[3]} pixels leave a last map of one "
                f"token a side: enlarge them to at least {SMALL} a side",
                stacklevel=3,
            )
        return to_map(self.stem(images.contiguous(memory_format=torch.channels_last)))

    def stage_maps(self, x: Float[Tensor, "b h w dim"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The output of every stage for the stem's map ``x``, before its down-sampling."""
        maps = []
        stage: Any
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
            x = stage.halve(x)
        return maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping what is inside them."""
        stage: Any
        for stage in self.stages:
            stage.checkpointing = enable

    def _initialise(self) -> None:
        """As the authors': linear layers normal of 0.02, the rest as PyTorch does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


class Head(nn.Module):
    """Projection, batch norm, SiLU, mean over positions (a map where ``pool`` is off)."""

    pool = True

    def __init__(self, dim: int, projection: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, projection)
        self.norm = nn.BatchNorm2d(projection)

    def forward(
        self, x: Float[Tensor, "b h w dim"]
    ) -> Float[Tensor, "b projection"] | Float[Tensor, "b h w projection"]:
        x = F.silu(self.norm(to_image(self.projection(x))))
        return x.mean((2, 3)) if self.pool else to_map(x)


class TokenLabelOutput(NamedTuple):
    """What a token-labelling model returns in training."""

    logits: Float[Tensor, "b classes"]
    token_logits: Float[Tensor, "b tokens classes"]
    """Row by row; those inside the box are the flipped batch's, put back to their own image."""
    box: Int[Tensor, "4"]
    """Top, left, bottom, right on the grid of tokens; there the images were swapped."""


class RMT(Encoder):
    """The classifier of Table 9.

    Input: images normalised by ImageNet's mean and deviation, any height and width from 4 pixels.
    """

    variants: ClassVar[dict[str, RMTConfig]] = VARIANTS

    def __init__(self, config: RMTConfig) -> None:
        super().__init__(config)
        self.head = Head(config.dims[-1], config.projection)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = (
            nn.Linear(config.projection, config.classes) if config.classes else nn.Identity()
        )
        self.token_classifier = (
            nn.Linear(config.dims[-1], config.classes) if config.token_labels else None
        )
        self._initialise()

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        heads: Sequence[int] | None = None,
        decay_start: Sequence[float] | None = None,
        decay_spread: Sequence[float] | None = None,
        decomposed: Sequence[bool] | None = None,
        drop_path: float | None = None,
        classes: int | None = None,
        token_labels: bool | None = None,
    ) -> Self:
        """The authors' classifier.

        What their file does not tell is that of the published variant with the same sizes.

        Args:
            checkpoint: their file, or what ``torch.load`` makes of it.
            heads: per stage; read off the file where it holds the ``Relpos`` buffers, as are
            decay_start: a of Eq. 3 per stage, and
            decay_spread: b - a per stage.
            decomposed: per stage, whether attention runs along rows and columns.
            drop_path: stochastic depth for further training.
            classes: give the head another number of classes; a new head is initialised, with a
                warning.
            token_labels: ``False`` leaves the token head of an RMT* out.

        Raises:
            CheckpointError: a file that is not RMT's, or does not fit the settings.
            ValueError: a setting that neither the file nor a published variant tells.
        """
        from rmt.official import convert

        config, state = convert(
            read_checkpoint(checkpoint),
            RMTConfig,
            heads=heads,
            decay_start=decay_start,
            decay_spread=decay_spread,
            decomposed=decomposed,
            drop_path=drop_path,
            token_labels=token_labels,
        )
        if classes is not None and classes != config.classes:
            labels = config.token_labels and classes > 0
            config = replace(config, classes=classes, token_labels=labels)
            state = renew_heads(cls(config), state, "classifier.", "token_classifier.")
        return cls.from_state(config, state)

    def forward_features(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Float[Tensor, "b h w dim"]:
        """The last stage's map, a 32nd of the image a side."""
        return self.stage_maps(self.embed(images))[-1]

    def forward_head(
        self, x: Float[Tensor, "b h w dim"], pre_logits: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Class logits of the last stage's map; with ``pre_logits``, its pooled feature."""
        feature = self.head(x)
        return feature if pre_logits else self.classifier(self.dropout(feature))

    def token_logits(self, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b tokens classes"]:
        """Class logits of every position of the last stage's map, row by row.

        Raises:
            ValueError: for a model without a token head.
        """
        if self.token_classifier is None:
            raise ValueError("this model has no token head: its config has token_labels=False")
        return self.token_classifier(rearrange(x, "b h w dim -> b (h w) dim"))

    def forward(
        self, images: Float[Tensor, "b channels height width"], box: Int[Tensor, "4"] | None = None
    ) -> Float[Tensor, "b ..."] | TokenLabelOutput:
        """Class logits (the pooled feature without classes).

        A token-labelling model adds half of each class's best token. In training it swaps a box
        of the stem's map with the flipped batch, drawn unless ``box`` is given, and returns the
        parts: see `TokenLabelOutput` and `rmt.token_label_loss`.
        """
        if self.training and self.token_classifier is not None:
            return self._forward_mixed(images, box)
        x = self.forward_features(images)
        logits = self.forward_head(x)
        if self.token_classifier is None:
            return logits
        return logits + TOKEN_LOGITS_WEIGHT * self.token_logits(x).amax(1)

    def _forward_mixed(self, images: Tensor, box: Tensor | None) -> TokenLabelOutput:
        height, width = images.shape[2:]
        grid = (height // 32, width // 32)
        if height % 32 or width % 32:
            raise ValueError(
                f"images of {height} x {width} pixels: training with token labels needs multiples "
                "of 32, so that tokens and boxes coincide"
            )
        if box is None:
            box = draw_box(*grid, device=images.device)
        mask = inside(box, *grid)
        pixels = mask.repeat_interleave(8, 0).repeat_interleave(8, 1)
        x = self.stage_maps(swap(self.embed(images), pixels))[-1]
        tokens = rearrange(self.token_logits(x), "b (h w) classes -> b h w classes", h=grid[0])
        tokens = rearrange(swap(tokens, mask), "b h w classes -> b (h w) classes")
        return TokenLabelOutput(self.forward_head(x), tokens, box)


class RMTBackbone(Encoder):
    """The encoder of detectors and segmenters: maps of strides 4, 8, 16 and 32."""

    variants: ClassVar[dict[str, RMTBackboneConfig]] = BACKBONES

    def __init__(self, config: RMTBackboneConfig) -> None:
        super().__init__(config)
        self.norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(config.dims[i], eps=1e-5) for i in config.out_indices}
        )
        self._initialise()
        self.train(self.training)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        heads: Sequence[int] | None = None,
        decay_start: Sequence[float] | None = None,
        decay_spread: Sequence[float] | None = None,
        decomposed: Sequence[bool] | None = None,
        drop_path: float | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_batch_norm: bool = False,
    ) -> Self:
        """The encoder of a detector, a segmenter or an ImageNet classifier of the authors.

        Of a detector's or segmenter's file, everything outside the backbone is left out; of a
        classifier's, the heads, and the norms of the returned maps are new.

        Args:
            checkpoint: their file, or what ``torch.load`` makes of it.
            heads: this and the next four as in `rmt.RMT.from_official`.
            decay_start: likewise.
            decay_spread: likewise.
            decomposed: likewise.
            drop_path: likewise.
            out_indices: stages whose maps are returned; all by default.
            frozen_batch_norm: keep the batch norms as they are in training.

        Raises:
            CheckpointError: a file that is not RMT's, or does not fit the settings.
            ValueError: a setting that neither the file nor a published variant tells.
        """
        from rmt.official import convert

        config, state = convert(
            read_checkpoint(checkpoint),
            RMTBackboneConfig,
            heads=heads,
            decay_start=decay_start,
            decay_spread=decay_spread,
            decomposed=decomposed,
            drop_path=drop_path,
            out_indices=out_indices,
            frozen_batch_norm=frozen_batch_norm,
        )
        return cls.from_state(config, state)

    def forward(
        self, images: Float[Tensor, "b channels height width"]
    ) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """One map per entry of ``out_indices``, each side rounded up."""
        maps = self.stage_maps(self.embed(images))
        return tuple(
            to_image(self.norms[str(i)](maps[i])).contiguous() for i in self.config.out_indices
        )

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; with ``frozen_batch_norm``, batch norms stay in the latter.

        The authors' ``norm_eval`` promises the same and freezes nothing, since it looks for
        another class of batch norm.
        """
        super().train(mode)
        if self.config.frozen_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval().requires_grad_(False)
        return self
