"""SReT: Sliced Recursive Transformer (Shen et al., ECCV 2022).

Every block is applied several times in a row with the same weights, a small projection of its own
after each application; attention looks at slices of the tokens only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Self

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
    read_checkpoint,
    renew_heads,
    replace,
    require,
    require_choice,
    require_fraction,
    require_positive,
    split_heads,
    token_linear,
)
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

STRIDE = 8
"""Of the stem."""
PERMUTATIONS = ("fixed", "random", "identity")


@dataclass(frozen=True, kw_only=True)
class SReTConfig:
    """Sizes of the network; the entries of each tuple belong to the stages."""

    channels: int = 3
    """Of the images."""
    classes: int = 1000
    """0: the model returns its pooled feature."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width that the table of positions is for."""
    dynamic_size: bool = False
    """Take images of any size whose tokens the slices divide; positions are resampled each time."""
    dims: tuple[int, ...] = (64, 128, 256)
    heads: tuple[int, ...] = (2, 4, 8)
    depths: tuple[int, ...] = (4, 10, 6)
    """Applications of blocks."""
    shared_blocks: tuple[int, ...] = (2, 5, 3)
    """Blocks with weights of their own, each applied equally often."""
    slices: tuple[int, ...] = (8, 4, 1)
    """Groups of tokens that attend among themselves, in even applications (from 0) of a stage."""
    recursive_slices: tuple[int, ...] = (2, 1, 1)
    """Likewise in odd ones, where more than one means that tokens are permuted before."""
    mlp_ratio: float = 3.6
    projection_ratio: float = 1.0
    """Hidden size of the projection after each application, in units of the stage's width."""
    permutation: str = "fixed"
    """Of tokens, in evaluation: by ``permutation_seed``, drawn anew, or none. In training they are
    always drawn anew."""
    permutation_seed: int = 0
    dropout: float = 0.0
    """On the pooled feature, before the class head."""
    token_dropout: float = 0.0
    """On the embedded tokens and on what attention and MLPs add."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    drop_path: float = 0.1
    """Stochastic depth; the authors' rule leaves every block well below it."""

    def __post_init__(self) -> None:
        require_positive(
            self, "channels", "image_size", "dims", "heads", "depths", "shared_blocks", "slices",
            "recursive_slices",
        )  # fmt: skip
        require_fraction(self, "dropout", "token_dropout", "attention_dropout", "drop_path")
        require_choice(self, "permutation", PERMUTATIONS)
        require(self, "classes", self.classes >= 0, "must be at least 0")
        require(self, "mlp_ratio", self.mlp_ratio > 0, "must be positive")
        require(self, "projection_ratio", self.projection_ratio > 0, "must be positive")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and field.name != "image_size":
                equal = len(value) == len(self.dims)
                require(self, field.name, equal, f"needs {len(self.dims)} entries, as dims has")
        pairs = list(zip(self.dims, self.heads, self.depths, self.shared_blocks, strict=True))
        for dim, heads, depth, shared in pairs:
            require(self, "dims", dim % heads == 0, f"{dim} is not a multiple of {heads} heads")
            require(self, "depths", depth % shared == 0, f"{depth} is not a multiple of {shared}")
        for before, after in pairwise(self.dims):
            require(self, "dims", after % before == 0, f"{after} is not a multiple of {before}")
        whole = not any(side % STRIDE for side in self.image_size)
        require(self, "image_size", whole, f"must be multiples of {STRIDE}")
        self.check_slices(self.image_size)

    def check_slices(self, image_size: tuple[int, int]) -> None:
        """Raise ``ValueError`` unless every stage's tokens fall into equal slices."""
        for i, (h, w) in enumerate(self.grids(image_size)):
            used = {"slices": self.slices[i]}
            if self.depths[i] > 1:
                used["recursive_slices"] = self.recursive_slices[i]
            for field, count in used.items():
                rule = f"stage {i + 1} has {h} x {w} tokens, which {count} does not divide"
                require(self, field, h * w % count == 0, rule)

    def grids(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Tokens down and across in each stage."""
        h, w = (side // STRIDE for side in image_size)
        found = []
        for _ in self.dims:
            found.append((h, w))
            h, w = -(-h // 2), -(-w // 2)
        return found


_WHOLE: dict[str, Any] = {"slices": (1, 1, 1), "recursive_slices": (1, 1, 1), "drop_path": 0.0}
_SMALL: dict[str, Any] = {
    "dims": (126, 252, 504), "heads": (3, 6, 12), "mlp_ratio": 3.0, "projection_ratio": 2.0,
}  # fmt: skip

VARIANTS: dict[str, SReTConfig] = {
    "sret_t": SReTConfig(),
    "sret_lt": SReTConfig(mlp_ratio=4.0),
    "sret_lt_16_14": SReTConfig(mlp_ratio=4.0, slices=(16, 14, 1), recursive_slices=(1, 1, 1)),
    "sret_s": SReTConfig(**_SMALL),
    "sret_t_wo_slice": SReTConfig(**_WHOLE),
    "sret_lt_wo_slice": SReTConfig(mlp_ratio=4.0, **_WHOLE),
    "sret_s_wo_slice": SReTConfig(**_SMALL, **_WHOLE),
    "sret_t_wo_slice_384": SReTConfig(**_WHOLE, image_size=(384, 384)),
    "sret_s_wo_slice_384": SReTConfig(**_SMALL, **_WHOLE, image_size=(384, 384)),
    "sret_s_wo_slice_512": SReTConfig(**_SMALL, **_WHOLE, image_size=(512, 512)),
}
"""The published classifiers; the distilled ones differ in their weights alone."""


class SlicedAttention(nn.Module):
    """Multi-head self-attention inside equal slices of the token sequence."""

    def __init__(self, config: SReTConfig, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, config.attention_dropout
        self.qkv = TokenLinear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n dim"], slices: int) -> Float[Tensor, "b n dim"]:
        """What the tokens of each slice tell each other, before the layer ``out``."""
        query, key, value = self.project(x, slices)
        attended = attend(query, key, value, dropout=self.dropout if self.training else 0.0)
        return rearrange(attended, "(b slices) heads n d -> b (slices n) (heads d)", slices=slices)

    def project(self, x: Float[Tensor, "b n dim"], slices: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [b * slices, heads, tokens, d]: a slice is a sequence."""
        qkv = rearrange(self.qkv(x), "b (slices n) dims -> (b slices) n dims", slices=slices)
        return split_heads(qkv, self.heads)

    def weights_of(
        self, x: Float[Tensor, "b n dim"], slices: int, token: int
    ) -> Float[Tensor, "b heads n"]:
        """The attention weights of one token, 0 outside of its slice."""
        query, key, _ = self.project(x, slices)
        size = x.shape[1] // slices
        weights = attention_weights(query[:, :, token % size, None], key)
        mine = rearrange(weights, "(b s) heads 1 n -> b s heads n", s=slices)[:, token // size]
        start = token // size * size
        return F.pad(mine, (start, x.shape[1] - start - size))


class MLP(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, config: SReTConfig, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio + 1e-6)  # a ratio read off a file may fall just short
        self.hidden, self.out = TokenLinear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = Dropout(config.token_dropout)

    def forward(self, x: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n hidden"]:
        """The hidden layer, before the layer ``out``."""
        return self.dropout(F.gelu(self.hidden(x)))


class Block(nn.Module):
    """Attention and MLP, each added with learned weights on both summands."""

    def __init__(self, config: SReTConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        dim = config.dims[stage]
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SlicedAttention(config, dim, config.heads[stage])
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(config, dim, config.mlp_ratio)
        self.weights = nn.Parameter(torch.ones(4))
        self.dropout, self.drop_path = Dropout(config.token_dropout), DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "b n dim"], slices: int, order: Int[Tensor, "n"] | None = None
    ) -> Float[Tensor, "b n dim"]:
        """``order`` permutes the tokens for the attention alone."""
        keep, add, keep_mlp, add_mlp = self.weights.unbind()
        z = self.attention_norm(x)
        if order is None:
            z = self.attention(z, slices)
        else:
            z = self.attention(z.index_select(1, order), slices)
            z = z.index_select(1, order.argsort())
        z = self.dropout(scaled_linear(z, self.attention.out, add))
        x = torch.addcmul(self.drop_path(z), x, keep)
        z = scaled_linear(self.mlp(self.mlp_norm(x)), self.mlp.out, add_mlp)
        return torch.addcmul(self.drop_path(self.dropout(z)), x, keep_mlp)


class Projection(nn.Module):
    """The non-linear projection after each application of a block, with weights of its own."""

    def __init__(self, config: SReTConfig, stage: int) -> None:
        super().__init__()
        dim = config.dims[stage]
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(config, dim, config.projection_ratio)
        self.weights = nn.Parameter(torch.ones(2))
        self.dropout = Dropout(config.token_dropout)

    def forward(self, x: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        keep, add = self.weights.unbind()
        z = scaled_linear(self.mlp(self.norm(x)), self.mlp.out, add)
        return torch.addcmul(self.dropout(z), x, keep)


class Stage(nn.Module):
    """Shared blocks, each applied several times in a row, over maps of one size."""

    def __init__(self, config: SReTConfig, stage: int) -> None:
        super().__init__()
        first, depth = sum(config.depths[:stage]), config.depths[stage]
        shared = config.shared_blocks[stage]
        # The authors' files come from this rule: a block takes the rate of its number, not of its
        # place in the unrolled network.
        rates = [config.drop_path * (first + b) / sum(config.depths) for b in range(shared)]
        self.loops = depth // shared
        self.slices = config.slices[stage], config.recursive_slices[stage]
        self.blocks = nn.ModuleList(Block(config, stage, rate) for rate in rates)
        self.projections = nn.ModuleList(Projection(config, stage) for _ in range(depth))
        self.checkpointing = False

    @property
    def permuted(self) -> list[int]:
        """The applications that permute the tokens."""
        # By the place in the stage, as in the authors' code: with two loops each block's second.
        return list(range(1, len(self.projections), 2)) if self.slices[1] > 1 else []

    def forward(
        self, x: Float[Tensor, "b h w dim"], orders: Sequence[Int[Tensor, "n"] | None]
    ) -> Float[Tensor, "b h w dim"]:
        """``orders`` has the permutation of each application in ``permuted``."""
        height, width = x.shape[1:3]
        x = rearrange(x, "b h w dim -> b (h w) dim")
        for i in range(len(self.projections)):
            order = self.order_of(i, orders)
            if self.checkpointing and self.training:
                x = checkpoint(self.apply_once, x, i, order, use_reentrant=False)
            else:
                x = self.apply_once(x, i, order)
        return rearrange(x, "b (h w) dim -> b h w dim", h=height, w=width)

    def attention_of(
        self, x: Float[Tensor, "b h w dim"], orders: Sequence[Int[Tensor, "n"] | None], token: int
    ) -> Float[Tensor, "b heads h w"]:
        """How much ``token`` attends to every token in the last application: for looking at."""
        height, width = x.shape[1:3]
        x, last = rearrange(x, "b h w dim -> b (h w) dim"), len(self.projections) - 1
        for i in range(last):
            x = self.apply_once(x, i, self.order_of(i, orders))
        block: Any = self.blocks[last // self.loops]
        order = self.order_of(last, orders)
        if order is None:
            order = torch.arange(height * width, device=x.device)
        z, back = block.attention_norm(x)[:, order], order.argsort()
        maps = block.attention.weights_of(z, self.slices[last % 2], int(back[token]))[..., back]
        return rearrange(maps, "b heads (h w) -> b heads h w", h=height)

    def order_of(
        self, i: int, orders: Sequence[Int[Tensor, "n"] | None]
    ) -> Int[Tensor, "n"] | None:
        """The order of tokens in application ``i``."""
        return orders[self.permuted.index(i)] if i in self.permuted else None

    def apply_once(
        self, x: Float[Tensor, "b n dim"], i: int, order: Int[Tensor, "n"] | None
    ) -> Float[Tensor, "b n dim"]:
        """Application ``i`` of the stage, and the projection after it."""
        return self.projections[i](self.blocks[i // self.loops](x, self.slices[i % 2], order))


class SReT(PaperModel):
    """The classifier.

    Input: images normalised by ImageNet's mean and deviation, of the size in the configuration.
    """

    variants: ClassVar[dict[str, SReTConfig]] = VARIANTS

    def __init__(self, config: SReTConfig) -> None:
        super().__init__(config)
        dims, (height, width) = config.dims, config.grids(config.image_size)[0]
        steps = [config.channels, dims[0] // 2, dims[0], dims[0]]
        self.stem = nn.Sequential(*[stem_step(before, after) for before, after in pairwise(steps)])
        self.positions = nn.Parameter(torch.empty(1, dims[0], height, width))
        self.token_dropout = Dropout(config.token_dropout)
        self.stages = nn.ModuleList(Stage(config, i) for i in range(len(dims)))
        self.downsamples = nn.ModuleList(
            nn.Conv2d(before, after, 3, 2, padding=1, groups=before)
            for before, after in pairwise(dims)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(dims[-1], config.classes) if config.classes else nn.Identity()
        nn.init.trunc_normal_(self.positions, std=0.02)

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        image_size: tuple[int, int] | int | None = None,
        sliced: bool = True,
        slices: Sequence[int] | None = None,
        recursive_slices: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        shared_blocks: Sequence[int] | None = None,
        drop_path: float = 0.0,
        classes: int | None = None,
    ) -> Self:
        """The authors' classifier: a file that repeats shared blocks, or lists them once.

        Files of sliced and unsliced networks look the same; what else a file does not tell is that
        of the published network with the same widths and depths.

        Args:
            checkpoint: their file, or what ``torch.load`` makes of it.
            image_size: of the network; positions are resampled to it. The checkpoint's by default.
            sliced: whether attention is sliced, as in the published networks without ``wo_slice``.
            slices: per stage; see `SReTConfig`.
            recursive_slices: likewise.
            heads: per stage.
            shared_blocks: per stage; read off the file where no published network tells.
            drop_path: stochastic depth for further training.
            classes: give the head another number of classes; a new head is initialised, with a
                warning.

        Raises:
            CheckpointError: a file that is not SReT's, does not fit the settings, or whose
                repetitions of a shared block differ.
            ValueError: a setting that neither the file nor a published variant tells.
        """
        from sret.official import convert

        config, state = convert(
            read_checkpoint(checkpoint),
            image_size=image_size,
            sliced=sliced,
            slices=slices,
            recursive_slices=recursive_slices,
            heads=heads,
            shared_blocks=shared_blocks,
            drop_path=drop_path,
        )
        if classes is not None and classes != config.classes:
            config = replace(config, classes=classes)
            state = renew_heads(cls(config), state, "classifier.")
        return cls.from_state(config, state)

    def resized(self, image_size: tuple[int, int]) -> Self:
        """The same network for images of another size, its positions resampled."""
        config, state = replace(self.config, image_size=image_size), self.state_dict()
        state["positions"] = resample(self.positions.detach(), config.grids(image_size)[0])
        return self.from_state(config, state)

    def forward(
        self,
        images: Float[Tensor, "b channels height width"],
        permutations: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> Float[Tensor, "b ..."]:
        """Class logits; the pooled feature without classes.

        Args:
            images: normalised.
            permutations: the order of tokens in each application that permutes them, in the order
                of layers; by default drawn in training, and as the configuration says otherwise.
        """
        return self.forward_head(self.forward_features(images, permutations))

    def forward_features(
        self,
        images: Float[Tensor, "b channels height width"],
        permutations: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> Float[Tensor, "b h w dim"]:
        """The last stage's map, a 32nd of the image a side."""
        x = self.embed(images)
        orders = self.orders(x, permutations)
        for i, stage in enumerate(self.stages):
            x = stage(self.halve(i, x), orders[i])
        return x

    def levels(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Iterator[Float[Tensor, "b h w dim"]]:
        """The map of each stage, one after another."""
        x = self.embed(images)
        orders = self.orders(x)
        for i, stage in enumerate(self.stages):
            x = stage(self.halve(i, x), orders[i])
            yield x

    def middle_attention(
        self, images: Float[Tensor, "b channels height width"]
    ) -> list[Float[Tensor, "b heads h w"]]:
        """What the token in the middle attends to, at the end of each stage: for looking at."""
        x, found = self.embed(images), []
        orders = self.orders(x)
        stage: Any
        for i, stage in enumerate(self.stages):
            x = self.halve(i, x)
            middle = x.shape[1] // 2 * x.shape[2] + x.shape[2] // 2
            found.append(stage.attention_of(x, orders[i], middle))
            x = stage(x, orders[i])
        return found

    def forward_head(
        self, x: Float[Tensor, "b h w dim"], pre_logits: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Class logits of the last map; with ``pre_logits``, its normalised mean."""
        feature = self.norm(x.mean((1, 2)))
        return feature if pre_logits else self.classifier(self.dropout(feature))

    def embed(self, images: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b h w dim"]:
        """The stem's map, an 8th of the image a side, positions added.

        Raises:
            ValueError: for another number of axes or channels, or a size that the network can't
                take.
        """
        self._check(images)
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        x = x + resample(self.positions, (x.shape[2], x.shape[3]))
        return self.token_dropout(rearrange(x, "b dim h w -> b h w dim"))

    def halve(self, i: int, x: Float[Tensor, "b h w dim"]) -> Float[Tensor, "b h2 w2 dim2"]:
        """The input of stage ``i``, made of what the one before gave."""
        if not i:
            return x
        x = self.downsamples[i - 1](rearrange(x, "b h w dim -> b dim h w"))
        return rearrange(x, "b dim h w -> b h w dim")

    def orders(
        self,
        x: Float[Tensor, "b h w dim"],
        given: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> list[list[Int[Tensor, "_"] | None]]:
        """For each stage, the order of tokens in each application that permutes them.

        Raises:
            ValueError: for another number of given orders, or one of another length.
        """
        grids = self.config.grids((STRIDE * x.shape[1], STRIDE * x.shape[2]))
        stages: Any = self.stages
        places = [(i, grids[i]) for i, stage in enumerate(stages) for _ in stage.permuted]
        lengths = [h * w for _, (h, w) in places]
        kind = "random" if self.training else self.config.permutation
        if given is not None:
            if [len(order) for order in given] != lengths:
                raise ValueError(
                    f"permutations of lengths {[len(order) for order in given]}: "
                    f"the network takes {lengths}"
                )
            drawn: list[Any] = [order.to(x.device) for order in given]
        elif kind == "identity":
            drawn = [None] * len(places)
        elif kind == "random":
            drawn = [torch.randperm(n, device=x.device) for n in lengths]
        else:
            seed = self.config.permutation_seed
            drawn = [fixed_order(n, seed, i, x.device) for i, n in enumerate(lengths)]
        return [
            [order for order, (stage, _) in zip(drawn, places, strict=True) if stage == i]
            for i in range(len(self.stages))
        ]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each application in the backward pass instead of keeping what is inside it."""
        stage: Any
        for stage in self.stages:
            stage.checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Entries that weight decay spares besides the vectors."""
        return {"positions"}

    def _check(self, images: Tensor) -> None:
        config = self.config
        if images.ndim != 4 or images.shape[1] != config.channels:
            raise ValueError(
                f"images of shape {list(images.shape)}: "
                f"needs [batch, {config.channels}, height, width]"
            )
        height, width = images.shape[2:]
        if (height, width) == config.image_size:
            return
        if not config.dynamic_size:
            raise ValueError(
                f"images of {height} x {width} pixels, the model takes {config.image_size[0]} x "
                f"{config.image_size[1]}: resize them, or give image_size to from_official or "
                "resized, or set dynamic_size"
            )
        if not height or not width or height % STRIDE or width % STRIDE:
            raise ValueError(
                f"images of {height} x {width} pixels: both sides must be multiples of {STRIDE}"
            )
        config.check_slices((height, width))


def stem_step(before: int, after: int) -> nn.Sequential:
    """A convolution that halves the map, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, 2, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def scaled_linear(
    x: Float[Tensor, "b n dim"], layer: nn.Linear, scale: Float[Tensor, ""]
) -> Float[Tensor, "b n out"]:
    """``scale`` times what ``layer`` makes of ``x``, by way of the weights where they are fewer."""
    if x.shape[0] * x.shape[1] < layer.in_features:
        return token_linear(x, layer.weight, layer.bias) * scale
    return token_linear(x, layer.weight * scale, layer.bias * scale)


def resample(
    table: Float[Tensor, "1 dim h w"], grid: tuple[int, int]
) -> Float[Tensor, "1 dim rows columns"]:
    """Positions of a grid of tokens for another grid, bicubic."""
    if tuple(table.shape[2:]) == grid:
        return table
    return F.interpolate(table.float(), grid, mode="bicubic", antialias=True).to(table.dtype)


@cached_per_size
def fixed_order(tokens: int, seed: int, number: int, device: torch.device) -> Int[Tensor, "tokens"]:
    """A permutation that its arguments alone decide: tokens by a hash of their place.

    Integer arithmetic instead of a generator, so that it is the same on every device, and part of
    the graph under ``torch.compile``.
    """
    x = torch.arange(1, tokens + 1, device=device) + 10007 * number + 1000003 * seed
    for _ in range(3):
        x = (x * 1103515245 + 12345) % 2**31
        x = x ^ (x >> 15)
    return x.argsort(stable=True)
