"""RMT under timm's names: ``import rmt.timm``, then ``timm.create_model("rmt_s")``.

With ``num_classes``, ``in_chans``, ``features_only=True``, ``out_indices`` and the like; the
authors' file by ``pretrained=True, pretrained_cfg_overlay={"file": "RMT-S.pth"}``.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from rmt.convolution import to_image
from rmt.model import RMT, VARIANTS, RMTConfig
from rmt.official import convert

POOLS = ("avg", "")


class TimmRMT(RMT):
    """`rmt.RMT` with timm's arguments and methods; the weights are the same.

    Args:
        config: sizes of the network.
        num_classes: 0 for the pooled feature.
        in_chans: channels of the images.
        img_size: of no effect: any size is taken.
        global_pool: ``"avg"``, or ``""`` for the map that would be averaged.
        drop_rate: dropout before the class head.
        drop_path_rate: stochastic depth; the variant's own by default.
    """

    output_fmt = "NHWC"

    def __init__(
        self,
        config: RMTConfig,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] | None = None,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
    ) -> None:
        depth_rate = config.drop_path if drop_path_rate is None else drop_path_rate
        super().__init__(
            dataclasses.replace(
                config,
                classes=num_classes,
                channels=in_chans,
                dropout=drop_rate,
                drop_path=depth_rate,
            )
        )
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features, self.head_hidden_size = config.dims[-1], config.projection
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, dim in enumerate(config.dims)
        ]
        self._pool_by(global_pool)

    def _pool_by(self, global_pool: str) -> None:
        if global_pool not in POOLS:
            raise ValueError(f"global_pool={global_pool!r}: must be one of {POOLS}")
        self.global_pool = global_pool
        head: Any = self.head
        head.pool = global_pool == "avg"

    def forward_head(
        self, x: Float[Tensor, "b h w dim"], pre_logits: bool = False
    ) -> Float[Tensor, "..."]:
        """As `rmt.RMT.forward_head`; a map in, a map out where pooling is off."""
        return super().forward_head(x, pre_logits)

    def get_classifier(self) -> nn.Module:
        """The layer that gives the class logits."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh class head."""
        self.num_classes = num_classes
        if global_pool is not None:
            self._pool_by(global_pool)
        if not num_classes:
            self.classifier = nn.Identity()
            return
        self.classifier = nn.Linear(self.config.projection, num_classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def no_weight_decay(self) -> set[str]:
        """Entries that weight decay spares besides the vectors: none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of layers, for learning rates that fall with depth."""
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def forward_intermediates(
        self,
        x: Float[Tensor, "b channels height width"],
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of the stages ``indices`` (all, or the last so many), before down-sampling.

        Raises:
            ValueError: for another ``output_fmt`` than NCHW or NHWC.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r}: must be 'NCHW' or 'NHWC'")
        taken, last = _taken(self.stages, indices)
        maps, z = [], self.embed(x)
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            z = stage(stage_input(self.stages, i, z))
            if i in taken:
                maps.append(to_image(z) if output_fmt == "NCHW" else z)
        return maps if intermediates_only else (z, maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the maps of the stages ``indices`` don't need."""
        taken, last = _taken(self.stages, indices)
        self.stages = self.stages[: last + 1]
        if prune_head:
            self.head: Any = nn.Identity()
            self.reset_classifier(0, "")
        return taken


def stage_input(stages: nn.ModuleList, i: int, x: Tensor) -> Tensor:
    """The map that stage ``i`` takes: what the one before gave, halved."""
    before: Any = stages[i - 1]
    return before.halve(x) if i else x


def _taken(stages: nn.ModuleList, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    known = indices if indices is None or isinstance(indices, int) else list(indices)
    return feature_take_indices(len(stages), known)


def weights(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """The authors' entries under this model's names; its own as they are."""
    if "patch_embed.proj.0.weight" not in state:
        return state
    return convert(state, RMTConfig, token_labels=False)[1]


default_cfgs = generate_default_cfgs(
    {
        f"{name}.in1k": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "stem.0.0",
            "classifier": "classifier",
            "fixed_input_size": False,
        }
        for name in ("rmt_t", "rmt_s", "rmt_b", "rmt_l")
    }
)


def _create(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(
        TimmRMT,
        name,
        pretrained,
        pretrained_filter_fn=weights,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        config=VARIANTS[name],
        **kwargs,
    )


@register_model
def rmt_t(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """RMT-T, 14 million parameters."""
    return _create("rmt_t", pretrained, **kwargs)


@register_model
def rmt_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """RMT-S, 27 million parameters."""
    return _create("rmt_s", pretrained, **kwargs)


@register_model
def rmt_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """RMT-B, 54 million parameters."""
    return _create("rmt_b", pretrained, **kwargs)


@register_model
def rmt_l(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """RMT-L, 95 million parameters."""
    return _create("rmt_l", pretrained, **kwargs)
