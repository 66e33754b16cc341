"""TNT: Transformer in Transformer (Han et al., NeurIPS 2021).

A patch of the image is a sentence, a small piece of the patch a word. The inner transformer relates
the words of each sentence, the outer one the sentences.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

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
    gelu_linear,
    norm_linear,
    read_checkpoint,
    renew_heads,
    replace,
    require,
    require_fraction,
    require_positive,
    split_heads,
)
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

KERNEL = 7
"""Side of the convolution that makes words."""
SHORT = 32
"""Tokens up to which training keeps the attention maps."""


@dataclass(frozen=True, kw_only=True)
class TNTConfig:
    """Sizes of the network (Table 1)."""

    channels: int = 3
    """Of the images."""
    classes: int = 1000
    """0: the model returns the class token."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width that the table of patch positions is for."""
    dynamic_size: bool = False
    """Take images of any multiple of the patch; positions are resampled at each call."""
    patch_size: int = 16
    inner_stride: int = 4
    """Pixels from a word to the next."""
    outer_dim: int = 384
    inner_dim: int = 24
    outer_heads: int = 6
    inner_heads: int = 4
    depth: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    inner: bool = True
    """Off: blocks without the inner transformer, as in ViT; words make the first tokens only."""
    outer_positions: bool = True
    inner_positions: bool = True
    """Off: no encoding of the place of a patch in the image, of a word in the patch (Table 6)."""
    squeeze_excite: bool = False
    """A gate on what the outer MLP adds, from the mean over tokens; not in the paper."""
    dropout: float = 0.0
    """On the class token, before the class head."""
    token_dropout: float = 0.0
    """On the embedded tokens and on what attention and MLP add."""
    attention_dropout: float = 0.0
    """On the attention weights."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0 at the first."""

    def __post_init__(self) -> None:
        require_positive(
            self, "channels", "image_size", "patch_size", "inner_stride",
            "outer_dim", "inner_dim", "outer_heads", "inner_heads", "depth",
        )  # fmt: skip
        require_fraction(self, "dropout", "token_dropout", "attention_dropout", "drop_path")
        require(self, "classes", self.classes >= 0, "must be at least 0")
        require(self, "mlp_ratio", self.mlp_ratio > 0, "must be positive")
        whole = not any(side % self.patch_size for side in self.image_size)
        require(self, "image_size", whole, f"must be multiples of patch_size={self.patch_size}")
        for dim, heads in (("outer_dim", self.outer_heads), ("inner_dim", self.inner_heads)):
            divides = getattr(self, dim) % heads == 0
            require(self, dim, divides, f"must be a multiple of its {heads} heads")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def words(self) -> int:
        """Words in a patch."""
        return words_in(self.patch_size, self.inner_stride)


def words_in(patch_size: int, stride: int) -> int:
    """Words that a patch is cut into."""
    return math.ceil(patch_size / stride) ** 2


VARIANTS: dict[str, TNTConfig] = {
    "tnt_ti": TNTConfig(outer_dim=192, outer_heads=3, inner_dim=12, inner_heads=2, drop_path=0.1),
    "tnt_s": TNTConfig(drop_path=0.1),
    "tnt_b": TNTConfig(outer_dim=640, outer_heads=10, inner_dim=40, drop_path=0.1),
}
"""The published classifiers (Table 1); the authors' code builds S and B."""


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of each sequence (Eq. 1)."""

    def __init__(self, config: TNTConfig, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, config.attention_dropout
        self.qkv = TokenLinear(dim, 3 * dim, bias=config.qkv_bias)
        self.out = TokenLinear(dim, dim)

    def forward(self, x: Float[Tensor, "b tokens dim"]) -> Float[Tensor, "b tokens dim"]:
        return self.mix(self.qkv(x))

    def mix(self, qkv: Float[Tensor, "b tokens three_dims"]) -> Float[Tensor, "b tokens dim"]:
        """What the tokens tell each other, of their projections."""
        query, key, value = split_heads(qkv, self.heads)
        dropout = self.dropout if self.training else 0.0
        if query.shape[-2] <= SHORT and torch.is_grad_enabled() and not dropout:
            # Of 16 words the maps are small, and the fused backward pass costs more than it saves.
            attended = attention_weights(query, key) @ value
        else:
            attended = attend(query, key, value, dropout=dropout)
        return self.out(rearrange(attended, "b heads tokens d -> b tokens (heads d)"))

    def weights(self, x: Float[Tensor, "b tokens dim"]) -> Float[Tensor, "b heads tokens tokens"]:
        """The attention weights, for looking at."""
        query, key, _ = split_heads(self.qkv(x), self.heads)
        return attention_weights(query, key)


class Layer(nn.Module):
    """Attention and MLP, each normalised before and added (Eq. 4-5, and 7-8)."""

    def __init__(
        self, config: TNTConfig, dim: int, heads: int, drop_path: float, *, gated: bool = False
    ) -> None:
        super().__init__()
        hidden = int(dim * config.mlp_ratio + 1e-6)  # a ratio read off a file may fall just short
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(config, dim, heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = TokenLinear(dim, hidden), TokenLinear(hidden, dim)
        self.gate = SqueezeExcite(dim) if gated else None
        self.dropout, self.drop_path = Dropout(config.token_dropout), DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b tokens dim"]) -> Float[Tensor, "b tokens dim"]:
        qkv = norm_linear(x, self.attention_norm, self.attention.qkv)
        x = x + self.drop_path(self.dropout(self.attention.mix(qkv)))
        added = norm_linear(x, self.mlp_norm, self.fc1)
        added = self.dropout(gelu_linear(added, self.fc2, self.dropout))
        if self.gate is not None:
            added = added + self.gate(added) * added
        return x + self.drop_path(added)


class SqueezeExcite(nn.Sequential):
    """A gate in (-1, 1) for each channel, from the mean over tokens."""

    def __init__(self, dim: int) -> None:
        squeezed = int(0.25 * dim)
        super().__init__(
            nn.LayerNorm(dim),
            nn.Linear(dim, squeezed),
            nn.ReLU(),
            nn.Linear(squeezed, dim),
            nn.Tanh(),
        )

    def forward(self, x: Float[Tensor, "b tokens dim"]) -> Float[Tensor, "b 1 dim"]:
        return super().forward(x.mean(1, keepdim=True))


class WordsToSentence(nn.Sequential):
    """The words of a patch, one after another, to what they add to its sentence (Eq. 6).

    The paper has the linear layer alone; the authors' checkpoints have a norm on either side.
    """

    def __init__(self, config: TNTConfig, *, bias: bool) -> None:
        size = config.words * config.inner_dim
        super().__init__(
            nn.LayerNorm(size),
            TokenLinear(size, config.outer_dim, bias=bias),
            nn.LayerNorm(config.outer_dim),
        )

    def forward(self, words: Float[Tensor, "b n size"]) -> Float[Tensor, "b n dim"]:
        return self[2](norm_linear(words, self[0], self[1]))


class Block(nn.Module):
    """Inner transformer, words into sentences, outer transformer (Fig. 1)."""

    def __init__(self, config: TNTConfig, drop_path: float) -> None:
        super().__init__()
        self.inner = self.sentence = None
        if config.inner:
            self.inner = Layer(config, config.inner_dim, config.inner_heads, drop_path)
            self.sentence = WordsToSentence(config, bias=False)
        self.outer = Layer(
            config, config.outer_dim, config.outer_heads, drop_path, gated=config.squeeze_excite
        )

    def forward(
        self, words: Float[Tensor, "bn m c"], tokens: Float[Tensor, "b n1 dim"]
    ) -> tuple[Float[Tensor, "bn m c"], Float[Tensor, "b n1 dim"]]:
        words, tokens = self.tell(words, tokens)
        return words, self.outer(tokens)

    def tell(
        self, words: Float[Tensor, "bn m c"], tokens: Float[Tensor, "b n1 dim"]
    ) -> tuple[Float[Tensor, "bn m c"], Float[Tensor, "b n1 dim"]]:
        """The words after the inner transformer, and the sentences that they add to."""
        if self.inner is None or self.sentence is None:
            return words, tokens
        words = self.inner(words)
        told = rearrange(words, "(b n) m c -> b n (m c)", n=tokens.shape[1] - 1)
        return words, torch.cat([tokens[:, :1], tokens[:, 1:] + self.sentence(told)], 1)


class Level(NamedTuple):
    """What a block gives."""

    words: Float[Tensor, "bn m c"]
    """Of patch after patch, row by row."""
    tokens: Float[Tensor, "b n1 dim"]
    """The class token, then the sentences row by row."""
    grid: tuple[int, int]


class TNT(PaperModel):
    """The classifier of Table 1.

    Input: images with mean and deviation 0.5 taken off, of the size in the configuration.
    """

    variants: ClassVar[dict[str, TNTConfig]] = VARIANTS

    def __init__(self, config: TNTConfig) -> None:
        super().__init__(config)
        dim, (rows, columns) = config.outer_dim, config.grid
        self.word_embedding = nn.Conv2d(
            config.channels, config.inner_dim, KERNEL, config.inner_stride, padding=KERNEL // 2
        )
        self.sentence = WordsToSentence(config, bias=True)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.outer_positions = self.inner_positions = None
        if config.outer_positions:
            self.outer_positions = nn.Parameter(torch.empty(1, 1 + rows * columns, dim))
        if config.inner_positions:
            self.inner_positions = nn.Parameter(torch.empty(1, config.words, config.inner_dim))
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.token_dropout = Dropout(config.token_dropout)
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.checkpointing = False
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(dim, config.classes) if config.classes else nn.Identity()
        self._initialise()

    @classmethod
    def from_official(
        cls,
        checkpoint: Checkpoint,
        *,
        image_size: tuple[int, int] | int | None = None,
        source_size: tuple[int, int] | int | None = None,
        patch_size: int = 16,
        inner_stride: int = 4,
        outer_heads: int | None = None,
        inner_heads: int | None = None,
        drop_path: float = 0.0,
        classes: int | None = None,
    ) -> Self:
        """The authors' classifier, or timm's ``tnt_{s,b}_patch16_224``.

        Args:
            checkpoint: the file, or what ``torch.load`` makes of it.
            image_size: of the network, height and width; the positions of the patches are resampled
                to it. That of the checkpoint by default.
            source_size: of the checkpoint; a square, or else ``image_size``, by default.
            patch_size: of the checkpoint.
            inner_stride: of the checkpoint.
            outer_heads: those of the published network of the same widths by default.
            inner_heads: likewise.
            drop_path: stochastic depth for further training.
            classes: give the head another number of classes; a new head is initialised, with a
                warning.

        Raises:
            CheckpointError: a file that is not TNT's, or does not fit the settings.
            ValueError: a setting that neither the file nor a published variant tells.
        """
        from tnt.official import convert

        config, state = convert(
            read_checkpoint(checkpoint),
            image_size=image_size,
            source_size=source_size,
            patch_size=patch_size,
            inner_stride=inner_stride,
            outer_heads=outer_heads,
            inner_heads=inner_heads,
            drop_path=drop_path,
        )
        if classes is not None and classes != config.classes:
            config = replace(config, classes=classes)
            state = renew_heads(cls(config), state, "classifier.")
        return cls.from_state(config, state)

    def resized(self, image_size: tuple[int, int]) -> Self:
        """The same network for images of another size, its patch positions resampled."""
        config = replace(self.config, image_size=image_size)
        state = self.state_dict()
        if self.outer_positions is not None:
            table = self.outer_positions.detach()
            state["outer_positions"] = resample(table, self.config.grid, config.grid)
        return self.from_state(config, state)

    def forward(self, images: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b ..."]:
        """Class logits; the class token without classes."""
        return self.forward_head(self.forward_features(images))

    def forward_features(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Float[Tensor, "b n1 dim"]:
        """The class token and the sentences, normalised."""
        words, tokens, _ = self.embed(images)
        for block in self.blocks:
            words, tokens = self._run(block, words, tokens)
        return self.norm(tokens)

    def forward_head(
        self, tokens: Float[Tensor, "b n1 dim"], pre_logits: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Class logits of the class token; with ``pre_logits``, itself."""
        x = tokens[:, 0]
        return x if pre_logits else self.classifier(self.dropout(x))

    def embed(self, images: Float[Tensor, "b channels height width"]) -> Level:
        """The first words and tokens, positions added.

        Raises:
            ValueError: for another number of axes or channels, or another size than the network's.
        """
        self._check(images)
        config = self.config
        grid = images.shape[2] // config.patch_size, images.shape[3] // config.patch_size
        words = self.word_vectors(images)
        if self.inner_positions is not None:
            words = words + self.inner_positions
        told = rearrange(words, "(b n) m c -> b n (m c)", n=grid[0] * grid[1])
        tokens = torch.cat([self.class_token.expand(len(told), -1, -1), self.sentence(told)], 1)
        if self.outer_positions is not None:
            tokens = tokens + resample(self.outer_positions, config.grid, grid)
        return Level(words, self.token_dropout(tokens), grid)

    def word_vectors(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Float[Tensor, "bn m c"]:
        """The words of every patch, which see nothing of other patches."""
        side = self.config.patch_size
        patches = rearrange(images, "b c (y p) (x q) -> (b y x) p q c", p=side, q=side)
        # Channels last throughout: what the convolution gives is read as words without a copy.
        words = self.word_embedding(rearrange(patches.contiguous(), "bn p q c -> bn c p q"))
        return rearrange(words, "bn c p q -> bn (p q) c")

    def levels(self, images: Float[Tensor, "b channels height width"]) -> Iterator[Level]:
        """What each block gives, one after another."""
        words, tokens, grid = self.embed(images)
        for block in self.blocks:
            words, tokens = self._run(block, words, tokens)
            yield Level(words, tokens, grid)

    def class_attention(
        self, images: Float[Tensor, "b channels height width"]
    ) -> list[Float[Tensor, "b heads h w"]]:
        """How much the class token attends to each patch, in every block: for looking at."""
        words, tokens, (rows, _) = self.embed(images)
        found = []
        block: Any
        for block in self.blocks:
            words, tokens = block.tell(words, tokens)
            weights = block.outer.attention.weights(block.outer.attention_norm(tokens))
            patches = weights[:, :, 0, 1:]
            found.append(rearrange(patches, "b heads (h w) -> b heads h w", h=rows))
            tokens = block.outer(tokens)
        return found

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping what is inside them."""
        self.checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Entries that weight decay spares besides the vectors."""
        return {"class_token", "outer_positions", "inner_positions"}

    def _run(self, block: nn.Module, words: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        if self.checkpointing and self.training:
            return checkpoint(block, words, tokens, use_reentrant=False)
        return block(words, tokens)

    def _check(self, images: Tensor) -> None:
        config = self.config
        if images.ndim != 4 or images.shape[1] != config.channels:
            raise ValueError(
                f"images of shape {list(images.shape)}: "
                f"needs [batch, {config.channels}, height, width]"
            )
        height, width = images.shape[2:]
        if config.dynamic_size:
            if not height or not width or height % config.patch_size or width % config.patch_size:
                raise ValueError(
                    f"images of {height} x {width} pixels: "
                    f"both sides must be multiples of the patch, {config.patch_size}"
                )
        elif (height, width) != config.image_size:
            raise ValueError(
                f"images of {height} x {width} pixels, the model takes {config.image_size[0]} x "
                f"{config.image_size[1]}: resize them, or give image_size to from_official or "
                "resized, or set dynamic_size"
            )

    def _initialise(self) -> None:
        """As the authors': linear layers, tokens and tables normal of 0.02."""
        for table in (self.class_token, self.outer_positions, self.inner_positions):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def resample(
    table: Float[Tensor, "1 n1 dim"], source: tuple[int, int], target: tuple[int, int]
) -> Float[Tensor, "1 m1 dim"]:
    """Positions of a grid of patches for another grid, bicubic; the class token's stays."""
    if source == target:
        return table
    image = rearrange(table[:, 1:].float(), "1 (y x) dim -> 1 dim y x", y=source[0])
    image = F.interpolate(image, target, mode="bicubic", antialias=True)
    patches = rearrange(image, "1 dim y x -> 1 (y x) dim").to(table.dtype)
    return torch.cat([table[:, :1], patches], 1)
