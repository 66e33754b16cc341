"""SReT under timm's names: ``import sret.timm``, then ``timm.create_model("sret_t")``.

With ``num_classes``, ``in_chans``, ``img_size``, ``features_only=True`` and the like; the authors'
file by ``pretrained=True, pretrained_cfg_overlay={"file": "SReT_T.pth"}``.
"""

from collections.abc import Mapping
from typing import Any

from image_classification_kit import timm as kit
from jaxtyping import Float
from torch import Tensor, nn

from sret.model import STRIDE, VARIANTS, SReT, resample
from sret.official import from_official_names


class TimmSReT(kit.TimmClassifier, SReT):
    """`sret.SReT` with timm's arguments and methods; the weights are the same."""

    def sizes(self) -> list[tuple[int, int]]:
        return [(dim, STRIDE * 2**i) for i, dim in enumerate(self.config.dims)]

    def forward_head(
        self, x: Float[Tensor, "b h w dim"], pre_logits: bool = False
    ) -> Float[Tensor, "b ..."]:
        """As `sret.SReT.forward_head`; a map in, a map out where pooling is off."""
        if self.global_pool:
            return super().forward_head(x, pre_logits)
        x = self.norm(x)
        return x if pre_logits else self.classifier(self.dropout(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of layers, for learning rates that fall with depth."""
        blocks = [
            (r"^downsamples\.(\d+)", None),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.projections\.(\d+)", None),
            (r"^norm", (99999,)),
        ]
        return {"stem": r"^stem|^positions", "blocks": r"^stages\.(\d+)" if coarse else blocks}


def weights(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The authors' entries under this model's names, positions resampled; its own as they are."""
    if "pos_embed" not in state:
        return state
    config: Any = model.config
    ours = from_official_names(state, config)
    return ours | {"positions": resample(ours["positions"], config.grids(config.image_size)[0])}


default_cfgs = kit.default_cfgs(
    list(VARIANTS),
    first_conv="stem.0.0",
    fixed_input_size=True,
    sizes={name: config.image_size[0] for name, config in VARIANTS.items()},
)
kit.register(__name__, TimmSReT, VARIANTS, weights, out_indices=(0, 1, 2))
