"""TNT under timm's ways: ``import tnt.timm``, then ``timm.create_model("tnt_s")``.

The names are not those of timm's own TNT (``tnt_s_patch16_224``), which stay as they are. With
``num_classes``, ``in_chans``, ``img_size``, ``features_only=True`` and the like; the authors' file
by ``pretrained=True, pretrained_cfg_overlay={"file": "tnt_s_81.5.pth.tar"}``.
"""

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from image_classification_kit import timm as kit
from jaxtyping import Float
from torch import Tensor, nn

from tnt.cli import preprocessing
from tnt.model import TNT, VARIANTS, Level
from tnt.official import convert


class TimmTNT(kit.TimmClassifier, TNT):
    """`tnt.TNT` with timm's arguments and methods; the weights are the same."""

    levels_in = "blocks"
    pools = ("token", "avg", "")

    def sizes(self) -> list[tuple[int, int]]:
        return [(self.config.outer_dim, self.config.patch_size)] * self.config.depth

    def level_map(self, level: Level, norm: bool) -> Float[Tensor, "b h w dim"]:
        tokens = self.norm(level.tokens) if norm else level.tokens
        return rearrange(tokens[:, 1:], "b (h w) dim -> b h w dim", h=level.grid[0])

    def level_output(self, level: Level) -> Float[Tensor, "b n1 dim"]:
        return self.norm(level.tokens)

    def forward_head(
        self, tokens: Float[Tensor, "b n1 dim"], pre_logits: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Class logits of the class token, the mean of the sentences, or every token."""
        if self.global_pool == "token":
            return super().forward_head(tokens, pre_logits)
        x = tokens[:, 1:].mean(1) if self.global_pool else tokens
        return x if pre_logits else self.classifier(self.dropout(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of layers, for learning rates that fall with depth."""
        stem = r"^class_token|^outer_positions|^inner_positions|^word_embedding|^sentence"
        return {"stem": stem, "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


def weights(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The authors' or timm's entries under this model's names; its own as they are."""
    if not {"cls_token", "patch_pos"} & state.keys():
        return state
    config: Any = model.config
    return convert(
        state,
        image_size=config.image_size,
        patch_size=config.patch_size,
        inner_stride=config.inner_stride,
        outer_heads=config.outer_heads,
        inner_heads=config.inner_heads,
    )[1]


default_cfgs = kit.default_cfgs(
    list(VARIANTS),
    first_conv="word_embedding",
    preprocessing=preprocessing(),
    pool_size=None,
    fixed_input_size=True,
)
kit.register(__name__, TimmTNT, VARIANTS, weights, out_indices=(2, 5, 8, 11))
