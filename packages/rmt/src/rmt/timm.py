"""RMT under timm's names: ``import rmt.timm``, then ``timm.create_model("rmt_s")``.

With ``num_classes``, ``in_chans``, ``features_only=True``, ``out_indices`` and the like; the
authors' file by ``pretrained=True, pretrained_cfg_overlay={"file": "RMT-S.pth"}``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from image_classification_kit import timm as kit
from jaxtyping import Float
from torch import Tensor, nn

from rmt.model import RMT, VARIANTS, RMTConfig
from rmt.official import convert


class TimmRMT(kit.TimmClassifier, RMT):
    """`rmt.RMT` with timm's arguments and methods; the weights are the same."""

    def sizes(self) -> list[tuple[int, int]]:
        return [(dim, 4 * 2**i) for i, dim in enumerate(self.config.dims)]

    def levels(
        self, images: Float[Tensor, "b channels height width"]
    ) -> Iterator[Float[Tensor, "b h w dim"]]:
        """The map of every stage, before down-sampling."""
        x, before = self.embed(images), None
        stage: Any
        for stage in self.stages:
            x = stage(x if before is None else before.halve(x))
            before = stage
            yield x

    @property
    def head_hidden_size(self) -> int:
        return self.config.projection

    def pool_by(self, global_pool: str) -> None:
        super().pool_by(global_pool)
        head: Any = self.head
        head.pool = global_pool == "avg"

    def forward_head(
        self, x: Float[Tensor, "b h w dim"], pre_logits: bool = False
    ) -> Float[Tensor, "..."]:
        """As `rmt.RMT.forward_head`; a map in, a map out where pooling is off."""
        return super().forward_head(x, pre_logits)

    def no_weight_decay(self) -> set[str]:
        """Entries that weight decay spares besides the vectors: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of layers, for learning rates that fall with depth."""
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the maps of the stages ``indices`` don't need."""
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head:
            self.head: Any = nn.Identity()
        return taken


def weights(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The authors' entries under this model's names; its own as they are."""
    if "patch_embed.proj.0.weight" not in state:
        return state
    return convert(state, RMTConfig, token_labels=False)[1]


CLASSIFIERS = {name: VARIANTS[name] for name in ("rmt_t", "rmt_s", "rmt_b", "rmt_l")}
default_cfgs = kit.default_cfgs(list(CLASSIFIERS), first_conv="stem.0.0")
kit.register(__name__, TimmRMT, CLASSIFIERS, weights, out_indices=(0, 1, 2, 3))
