"""ResFormer under timm's ways: ``import resformer.timm``, then ``timm.create_model``.

``timm.create_model("resformer_small_patch16")`` with ``num_classes``, ``in_chans``,
``features_only=True`` and the like; the authors' file by
``pretrained=True, pretrained_cfg_overlay={"file": "resformer-s-mr.pth"}``.
"""

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from image_classification_kit import timm as kit
from jaxtyping import Float
from torch import Tensor, nn

from resformer.model import VARIANTS, ResFormer
from resformer.official import convert

Level = tuple[Float[Tensor, "b n1 dim"], tuple[int, int]]


class TimmResFormer(kit.TimmClassifier, ResFormer):
    """`resformer.ResFormer` with timm's arguments and methods; the weights are the same."""

    levels_in = "blocks"
    pools = ("token", "avg", "")

    def sizes(self) -> list[tuple[int, int]]:
        return [(self.config.dim, self.config.patch_size)] * self.config.depth

    @property
    def head_hidden_size(self) -> int:
        return self.config.feature_dim

    def level_map(self, level: Level, norm: bool) -> Float[Tensor, "b h w dim"]:
        tokens, (rows, _) = level
        tokens = self.norm(tokens) if norm else tokens
        return rearrange(tokens[:, 1:], "b (h w) dim -> b h w dim", h=rows)

    def level_output(self, level: Level) -> Float[Tensor, "b n1 dim"]:
        return self.norm(level[0])

    def forward(self, images: Float[Tensor, "b channels height width"]) -> Float[Tensor, "b ..."]:
        """As `resformer.ResFormer`, where the class token is what is pooled."""
        if self.global_pool == "token":
            return super().forward(images)
        return self.forward_head(self.forward_features(images))

    def forward_head(
        self, tokens: Float[Tensor, "b n1 dim"], pre_logits: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Class logits of the class token, the mean of the patches, or every token."""
        if self.global_pool == "token":
            return super().forward_head(tokens, pre_logits)
        x = self.representation(tokens[:, 1:].mean(1) if self.global_pool else tokens)
        return x if pre_logits else self.classifier(self.dropout(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of layers, for learning rates that fall with depth."""
        last = r"^norm|^representation"
        stem = r"^class_token|^positions|^patch_embedding"
        return {"stem": stem, "blocks": [(r"^blocks\.(\d+)", None), (last, (99999,))]}


def weights(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The authors' entries under this model's names; its own as they are."""
    return convert(state)[1] if "cls_token" in state else state


default_cfgs = kit.default_cfgs(list(VARIANTS), first_conv="patch_embedding", pool_size=None)
kit.register(__name__, TimmResFormer, VARIANTS, weights, out_indices=(2, 5, 8, 11))
