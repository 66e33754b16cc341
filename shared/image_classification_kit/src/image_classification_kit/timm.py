"""A paper's network with timm's arguments and methods, under timm's names.

The only module of the kit that imports timm; a package's own ``timm.py`` imports it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from einops import rearrange
from jaxtyping import Float
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from image_classification_kit.images import Preprocessing

Weights = Callable[[Mapping[str, Tensor], nn.Module], Mapping[str, Tensor]]
"""(entries of a file, the network) -> entries under the network's names."""


class TimmClassifier(nn.Module):
    """timm's side of a classifier: ``class TimmRMT(TimmClassifier, RMT)``.

    The other base keeps its class head as ``classifier``; its configuration has ``classes``,
    ``channels``, ``dropout``, ``drop_path`` and, where positions bind the size, ``image_size``.
    The subclass says where its feature maps come from: ``levels_in``, ``sizes`` and ``levels``.

    Args:
        config: sizes of the network.
        num_classes: 0 for the pooled feature.
        in_chans: channels of the images.
        img_size: height and width, or both in one; of no effect where any size is taken.
        global_pool: one of ``pools``, the first by default; ``""`` for what would be pooled.
        drop_rate: dropout before the class head.
        drop_path_rate: stochastic depth; the variant's own by default.
    """

    levels_in: ClassVar[str] = "stages"
    """The list of modules whose outputs are the feature maps."""
    pools: ClassVar[tuple[str, ...]] = ("avg", "")
    output_fmt = "NHWC"
    config: Any
    classifier: Any
    levels: Any
    """Images -> an iterator over what each level gives."""

    def __init__(
        self,
        config: Any,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] | None = None,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
    ) -> None:
        changes: dict[str, Any] = {
            "classes": num_classes, "channels": in_chans, "dropout": drop_rate,
        }  # fmt: skip
        if drop_path_rate is not None:
            changes["drop_path"] = drop_path_rate
        if img_size is not None and hasattr(config, "image_size"):
            pair = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
            changes["image_size"] = pair
        super().__init__(dataclasses.replace(config, **changes))
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": channels, "reduction": stride, "module": f"{self.levels_in}.{i}"}
            for i, (channels, stride) in enumerate(self.sizes())
        ]
        self.pool_by(self.pools[0] if global_pool is None else global_pool)

    def sizes(self) -> list[tuple[int, int]]:
        """Channels and stride of every level."""
        raise NotImplementedError

    def level_map(self, level: Any, norm: bool) -> Float[Tensor, "b h w dim"]:
        """The feature map in what a level gave; ``norm`` asks for the final norm where it fits."""
        return level

    def level_output(self, level: Any) -> Float[Tensor, "b ..."]:
        """What ``forward_features`` makes of the last level."""
        return level

    @property
    def num_features(self) -> int:
        """Channels of the last map."""
        return self.feature_info[-1]["num_chs"]

    @property
    def head_hidden_size(self) -> int:
        """Size of the pooled feature."""
        return self.num_features

    def pool_by(self, global_pool: str) -> None:
        """Set how ``forward_head`` pools.

        Raises:
            ValueError: when ``global_pool`` is none of ``pools``.
        """
        if global_pool not in self.pools:
            raise ValueError(f"global_pool={global_pool!r}: must be one of {self.pools}")
        self.global_pool = global_pool

    def get_classifier(self) -> nn.Module:
        """The layer that gives the class logits."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh class head."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.pool_by(global_pool)
        if not num_classes:
            self.classifier = nn.Identity()
            return
        self.classifier = nn.Linear(self.head_hidden_size, num_classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward_intermediates(
        self,
        x: Float[Tensor, "b channels height width"],
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of the levels ``indices`` (all, or the last so many), and the features.

        Raises:
            ValueError: for another ``output_fmt`` than NCHW or NHWC.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r}: must be 'NCHW' or 'NHWC'")
        taken, last = self._taken(indices)
        maps, level = [], None
        for i, level in enumerate(self.levels(x)):
            if i in taken:
                found = self.level_map(level, norm)
                if output_fmt == "NCHW":
                    found = rearrange(found, "b h w dim -> b dim h w")
                maps.append(found)
            if stop_early and i == last:
                break
        return maps if intermediates_only else (self.level_output(level), maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the maps of the levels ``indices`` don't need."""
        taken, last = self._taken(indices)
        setattr(self, self.levels_in, getattr(self, self.levels_in)[: last + 1])
        if prune_norm and hasattr(self, "norm"):
            setattr(self, "norm", nn.Identity())  # noqa: B010 -- the other base's attribute
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def _taken(self, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
        known = indices if indices is None or isinstance(indices, int) else list(indices)
        return feature_take_indices(len(getattr(self, self.levels_in)), known)


def default_cfgs(
    names: Sequence[str],
    *,
    first_conv: str,
    preprocessing: Preprocessing | None = None,
    pool_size: tuple[int, int] | None = (7, 7),
    fixed_input_size: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> Any:
    """The description timm keeps of each network in ``names``, trained on ImageNet-1k.

    Args:
        names: of the networks.
        first_conv: the first convolution, which ``in_chans`` adapts.
        preprocessing: how inputs are made; ImageNet's at 224 by default.
        pool_size: of the last map.
        fixed_input_size: whether positions bind the size.
        sizes: input side by name, where it is another than that of ``preprocessing``.
    """
    steps = preprocessing or Preprocessing()
    described: dict[str, Any] = {}
    for name in names:
        side = (sizes or {}).get(name, steps.size)
        described[f"{name}.in1k"] = {
            "num_classes": 1000,
            "input_size": (3, side, side),
            "pool_size": pool_size,
            "crop_pct": steps.crop,
            "interpolation": "bicubic",
            "mean": steps.mean,
            "std": steps.std,
            "first_conv": first_conv,
            "classifier": "classifier",
            "fixed_input_size": fixed_input_size,
        }
    return generate_default_cfgs(described)


def register(
    module: str,
    network: type[TimmClassifier],
    variants: Mapping[str, Any],
    weights: Weights,
    out_indices: Sequence[int],
) -> None:
    """Let ``timm.create_model`` and ``list_models`` know ``variants``.

    Args:
        module: the caller's ``__name__``; it has ``default_cfgs`` already.
        network: takes a variant's configuration, and timm's arguments.
        variants: the configurations by name; looked up anew at every call.
        weights: for ``pretrained=True``.
        out_indices: levels that ``features_only=True`` gives by default.
    """

    def entry(name: str) -> Callable[..., nn.Module]:
        def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
            return build_model_with_cfg(
                network,
                name,
                pretrained,
                pretrained_filter_fn=weights,
                feature_cfg={"out_indices": tuple(out_indices), "feature_cls": "getter"},
                config=variants[name],
                **kwargs,
            )

        create.__name__, create.__qualname__, create.__module__ = name, name, module
        return create

    for name in variants:
        register_model(entry(name))
