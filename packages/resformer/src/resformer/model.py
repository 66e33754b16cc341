"""ResFormer: Scaling ViTs with Multi-Resolution Training (Tian et al., CVPR 2023).

A plain vision transformer whose positions follow the image: a smooth map for the whole of it, and
what the neighbours' values say in every block. One set of weights serves any input size.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
import torch.nn.functional as F
from attention_core import (
    Checkpoint,
    Dropout,
    DropPath,
    PaperModel,
    TokenLinear,
    attend,
    attention_weights,
    cached_per_size,
    convolve,
    gelu_linear,
    norm_linear,
    read_checkpoint,
    renew_heads,
    replace,
    require,
    require_fraction,
    require_positive,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Target = Literal["cls", "gap", "logit"]
"""What stands for an image in scale consistency: class token, mean of the patches, or logits."""
TARGETS = get_args(Target)


@dataclass(frozen=True, kw_only=True)
class ResFormerConfig:
    """Sizes of the network."""

    channels: int = 3
    """Of the images."""
    classes: int = 1000
    """0: the model returns the class token."""
    patch_size: int = 16
    dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    representation: int | None = None
    """Width of a layer with tanh before the class head; none by default."""
    norm_eps: float = 1e-6
    dropout: float = 0.0
    """On the class token, before the class head."""
    token_dropout: float = 0.0
    """On the embedded tokens and on what attention and MLP add."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0 at the first."""

    def __post_init__(self) -> None:
        require_positive(self, "channels", "patch_size", "dim", "depth", "heads")
        require_fraction(self, "dropout", "token_dropout", "attention_dropout", "drop_path")
        require(self, "classes", self.classes >= 0, "must be at least 0")
        require(self, "mlp_ratio", self.mlp_ratio > 0, "must be positive")
        require(self, "norm_eps", self.norm_eps > 0, "must be positive")
        require(self, "dim", self.dim % 4 == 0, "must be a multiple of 4, for the sine map")
        require(self, "heads", self.dim % self.heads == 0, f"must divide dim={self.dim}")
        if self.representation is not None:
            require_positive(self, "representation")

    @property
    def feature_dim(self) -> int:
        """Of what the class head reads."""
        return self.representation or self.dim


VARIANTS: dict[str, ResFormerConfig] = {
    "resformer_tiny_patch16": ResFormerConfig(dim=192, heads=3, drop_path=0.1),
    "resformer_small_patch16": ResFormerConfig(drop_path=0.1),
    "resformer_base_patch16": ResFormerConfig(dim=768, heads=12, drop_path=0.2),
}
"""The published classifiers (Sec. 4.1)."""


class GlobalPositions(nn.Conv2d):
    """Global position embedding (Sec. 3.3): a depthwise 3x3 convolution of a sine map.

    The map spans the image whatever its size: the last row and column are at 2 pi.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)

    def forward(self, grid: tuple[int, int]) -> Float[Tensor, "1 hw dim"]:  # type: ignore[override]
        x = sine_map(self.out_channels, grid, self.weight.device).to(self.weight.dtype)
        return rearrange(super().forward(x), "1 dim h w -> 1 (h w) dim")


class Attention(nn.Module):
    """Multi-head self-attention; the local position embedding (Sec. 3.3) is added to its result.

    The local embedding is a depthwise 3x3 convolution of the patches' values. Its filters are those
    of one head and serve them all; the class token gets none.
    """

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__()
        dim, self.heads, self.dropout = config.dim, config.heads, config.attention_dropout
        head_dim = dim // config.heads
        self.qkv = TokenLinear(dim, 3 * dim, bias=config.qkv_bias)
        self.local = nn.Conv2d(head_dim, head_dim, 3, padding=1, groups=head_dim)
        self.out = TokenLinear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b n1 dim"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n1 dim"]:
        return self.mix(self.qkv(x), grid)

    def mix(
        self, qkv: Float[Tensor, "b n1 three_dims"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n1 dim"]:
        """What :meth:`forward` makes of the projections."""
        query, key, value = qkv.chunk(3, -1)
        values = rearrange(value[:, 1:], "b (h w) dim -> b h w dim", h=grid[0])
        local = rearrange(convolve(self.neighbours, values), "b h w dim -> b (h w) dim")
        return self.out(self.attend(query, key, value) + F.pad(local, (0, 0, 1, 0)))

    def class_token(self, x: Float[Tensor, "b n1 dim"]) -> Float[Tensor, "b 1 dim"]:
        """What :meth:`forward` gives for the class token, without the others."""
        dim, bias = x.shape[-1], self.qkv.bias
        one, two = (None, None) if bias is None else bias.tensor_split((dim,))
        query = F.linear(x[:, :1], self.qkv.weight[:dim], one)
        key, value = F.linear(x, self.qkv.weight[dim:], two).chunk(2, -1)
        return self.out(self.attend(query, key, value))

    def attend(
        self,
        query: Float[Tensor, "b queries dim"],
        key: Float[Tensor, "b n1 dim"],
        value: Float[Tensor, "b n1 dim"],
    ) -> Float[Tensor, "b queries dim"]:
        """Attention of every head, joined."""
        rate = self.dropout if self.training else 0.0
        attended = attend(*map(self.split, (query, key, value)), dropout=rate)
        return rearrange(attended, "b heads queries d -> b queries (heads d)")

    def split(self, x: Float[Tensor, "b n1 dim"]) -> Float[Tensor, "b heads n1 d"]:
        """The channels of each head."""
        return rearrange(x, "b n1 (heads d) -> b heads n1 d", heads=self.heads)

    def neighbours(self, values: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b dim h w"]:
        """The local embedding of every head."""
        weight, bias = self.local.weight, self.local.bias
        assert bias is not None
        weight, bias = weight.repeat(self.heads, 1, 1, 1), bias.repeat(self.heads)
        return F.conv2d(values, weight, bias, padding=1, groups=len(weight))

    def weights(self, x: Float[Tensor, "b n1 dim"]) -> Float[Tensor, "b heads n1 n1"]:
        """The attention weights, for looking at."""
        query, key, _ = self.qkv(x).chunk(3, -1)
        return attention_weights(self.split(query), self.split(key))


class Block(nn.Module):
    """Attention and MLP, each normalised before and added."""

    def __init__(self, config: ResFormerConfig, drop_path: float) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio + 1e-6)  # a ratio read off
        self.attention_norm = nn.LayerNorm(dim, config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(dim, config.norm_eps)
        self.fc1, self.fc2 = TokenLinear(dim, hidden), TokenLinear(hidden, dim)
        self.dropout, self.drop_path = Dropout(config.token_dropout), DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "b n1 dim"], grid: tuple[int, int]
    ) -> Float[Tensor, "b n1 dim"]:
        qkv = norm_linear(x, self.attention_norm, self.attention.qkv)
        return self._add(x, self.attention.mix(qkv, grid))

    def class_token(self, x: Float[Tensor, "b n1 dim"]) -> Float[Tensor, "b 1 dim"]:
        """What :meth:`forward` gives for the class token: a sixth of the work."""
        return self._add(x[:, :1], self.attention.class_token(self.attention_norm(x)))

    def _add(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.drop_path(self.dropout(attended))
        hidden = norm_linear(x, self.mlp_norm, self.fc1)
        return x + self.drop_path(self.dropout(gelu_linear(hidden, self.fc2, self.dropout)))


class View(NamedTuple):
    """What the network makes of images of one size."""

    logits: Float[Tensor, "b classes"]
    representation: Float[Tensor, "b dims"]
    """Of the target that was asked for."""


class ResFormer(PaperModel):
    """The classifier, for images whose sides are multiples of the patch."""

    variants: ClassVar[dict[str, ResFormerConfig]] = VARIANTS

    def __init__(self, config: ResFormerConfig) -> None:
        super().__init__(config)
        dim, side = config.dim, config.patch_size
        self.patch_embedding = nn.Conv2d(config.channels, dim, side, side)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.positions = GlobalPositions(dim)
        self.token_dropout = Dropout(config.token_dropout)
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.checkpointing = False
        self.norm = nn.LayerNorm(dim, config.norm_eps)
        self.representation: nn.Module = nn.Identity()
        if config.representation:
            self.representation = nn.Sequential(nn.Linear(dim, config.representation), nn.Tanh())
        self.dropout = nn.Dropout(config.dropout)
        self.classifier: nn.Module = nn.Identity()
        if config.classes:
            self.classifier = nn.Linear(config.feature_dim, config.classes)
        self._initialise()

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        norm_eps: float = 1e-6,
        drop_path: float = 0.0,
        classes: int | None = None,
    ) -> Self:
        """The authors' classifier.

        Args:
            checkpoint: the file, or what ``torch.load`` makes of it.
            norm_eps: of the layer norms.
            drop_path: stochastic depth for further training.
            classes: give the head another number of classes; a new head is initialised, with a
                warning.

        Raises:
            CheckpointError: a file that is not ResFormer's, or is damaged.
        """
        from resformer.official import convert

        config, state = convert(read_checkpoint(checkpoint), norm_eps=norm_eps, drop_path=drop_path)
        if classes is not None and classes != config.classes:
            config = replace(config, classes=classes)
            state = renew_heads(cls(config), state, "classifier.")
        return cls.from_state(config, state)

    @classmethod
    def from_vit(
        cls, checkpoint: Checkpoint, *, heads: int | None = None, norm_eps: float = 1e-6
    ) -> Self:
        """A plain ViT (DeiT, timm) to train on: its table of positions gives way to fresh ones.

        Args:
            checkpoint: the file, or what ``torch.load`` makes of it.
            heads: of the ViT; 64 channels each by default.
            norm_eps: of the layer norms.

        Raises:
            CheckpointError: a file that is not a plain ViT's.
        """
        from resformer.official import convert_vit

        config, state = convert_vit(read_checkpoint(checkpoint), heads=heads, norm_eps=norm_eps)
        fresh = cls(config).state_dict()
        positions = {k: v for k, v in fresh.items() if k.startswith("positions.") or ".local." in k}
        return cls.from_state(config, {**positions, **state})

    def forward(self, images: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b ..."]:
        """Class logits; the class token without classes."""
        return self._head(self._class_token(images))

    def forward_features(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Float[Tensor, "b n1 dim"]:
        """The class token and the patches row by row, normalised."""
        tokens, grid = self.embed(images)
        for block in self.blocks:
            tokens = self._run(block, tokens, grid)
        return self.norm(tokens)

    def forward_head(
        self, tokens: Float[Tensor, "b n1 dim"], pre_logits: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Class logits of the class token; with ``pre_logits``, what the class head reads."""
        return self.representation(tokens[:, 0]) if pre_logits else self._head(tokens[:, 0])

    def view(
        self, images: Float[Tensor, "b channels height width"], target: Target = "cls"
    ) -> View:
        """Class logits and the representation that scale consistency compares (Sec. 3.2).

        Raises:
            ValueError: for an unknown ``target``.
        """
        if target not in TARGETS:
            raise ValueError(f"target={target!r}: must be one of {', '.join(TARGETS)}")
        if target == "gap":
            tokens = self.forward_features(images)
            return View(self.forward_head(tokens), tokens[:, 1:].mean(1))
        feature = self.representation(self._class_token(images))
        logits = self.classifier(self.dropout(feature))
        return View(logits, feature if target == "cls" else logits)

    def feature_map(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Float[Tensor, "b dim h w"]:
        """The patches after the last norm, as a map: for detectors and segmenters."""
        patches = self.forward_features(images)[:, 1:]
        return rearrange(patches, "b (h w) dim -> b dim h w", h=self.grid(images)[0])

    def embed(
        self, images: Float[Tensor, "b channels height width"]
    ) -> tuple[Float[Tensor, "b n1 dim"], tuple[int, int]]:
        """The first tokens, positions added, and how many patches lie down and across.

        Raises:
            ValueError: for another number of axes or channels, or sides that patches don't fill.
        """
        grid = self.grid(images)
        patches = rearrange(self.patch_embedding(images), "b dim h w -> b (h w) dim")
        class_token = self.class_token.expand(images.shape[0], -1, -1)
        tokens = torch.cat([class_token, patches + self.positions(grid)], 1)
        return self.token_dropout(tokens), grid

    def grid(self, images: Float[Tensor, "b channels height width"]) -> tuple[int, int]:
        """Patches down and across."""
        if images.ndim != 4 or images.shape[1] != self.config.channels:
            raise ValueError(
                f"images of shape {list(images.shape)}: "
                f"needs [batch, {self.config.channels}, height, width]"
            )
        (height, width), side = images.shape[2:], self.config.patch_size
        if height < side or width < side or height % side or width % side:
            raise ValueError(
                f"images of {height} x {width} pixels: "
                f"both sides must be multiples of the patch, {side}"
            )
        return height // side, width // side

    def levels(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Iterator[tuple[Float[Tensor, "b n1 dim"], tuple[int, int]]]:
        """The tokens that each block gives, one after another, and their grid."""
        tokens, grid = self.embed(images)
        for block in self.blocks:
            tokens = self._run(block, tokens, grid)
            yield tokens, grid

    def class_attention(
        self, images: Float[Tensor, "b channels height width"]
    ) -> list[Float[Tensor, "b heads h w"]]:
        """How much the class token attends to each patch, in every block: for looking at."""
        tokens, grid = self.embed(images)
        found = []
        block: Any
        for block in self.blocks:
            patches = block.attention.weights(block.attention_norm(tokens))[:, :, 0, 1:]
            found.append(rearrange(patches, "b heads (h w) -> b heads h w", h=grid[0]))
            tokens = block(tokens, grid)
        return found

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping what is inside them."""
        self.checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Entries that weight decay spares besides the vectors: what tells positions."""
        local = {f"blocks.{i}.attention.local.weight" for i in range(len(self.blocks))}
        return {"class_token", "positions.weight", *local}

    def _class_token(self, images: Tensor) -> Tensor:
        """The class token after the last norm: the last block is run for it alone."""
        tokens, grid = self.embed(images)
        for block in self.blocks[:-1]:
            tokens = self._run(block, tokens, grid)
        last: Any = self.blocks[-1]
        return self.norm(last.class_token(tokens)[:, 0])

    def _head(self, token: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.representation(token)))

    def _run(self, block: nn.Module, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(block, tokens, grid, use_reentrant=False)
        return block(tokens, grid)

    def _initialise(self) -> None:
        """As the authors': linear layers normal of 0.02; local positions start at nothing."""
        nn.init.trunc_normal_(self.class_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Attention):
                nn.init.zeros_(module.local.weight)
                nn.init.zeros_(module.local.bias)  # type: ignore[arg-type]


@cached_per_size
def sine_map(dim: int, grid: tuple[int, int], device: torch.device) -> Float[Tensor, "1 dim h w"]:
    """Sines and cosines of where a patch lies: half the channels for its row, half for its column.

    Rows and columns count from 1 and are scaled to end at 2 pi; wavelengths rise to 10000.
    """
    pairs = torch.arange(dim // 4, device=device)
    wavelength = 10000.0 ** (2 * pairs.repeat_interleave(2) / (dim // 2))

    def waves(count: int) -> Float[Tensor, "half count"]:
        place = torch.arange(1, count + 1, device=device).float()
        angle = place / (count + 1e-6) * 2 * math.pi / wavelength[:, None]
        return torch.stack([angle[0::2].sin(), angle[1::2].cos()], 1).flatten(0, 1)

    rows, columns = waves(grid[0]), waves(grid[1])
    down = rows[:, :, None].expand(-1, -1, grid[1])
    across = columns[:, None, :].expand(-1, grid[0], -1)
    return torch.cat([down, across])[None]
