"""RMT as the backbone of mmdetection and mmsegmentation, under the arguments of their configs."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rmt.model import RMTBackbone, RMTBackboneConfig


class DenseRMT(nn.Module):
    """`rmt.RMTBackbone` with the argument names of the authors' detection configs.

    ``backbone=dict(type="RMT", embed_dims=[64, 128, 256, 512], depths=[3, 4, 18, 4], ...)`` builds
    it once :func:`register` has been called.

    Args:
        in_chans: channels of the images.
        out_indices: stages whose maps are returned.
        embed_dims, depths, num_heads, mlp_ratios: sizes of the stages.
        init_values: a of Eq. 3.
        heads_ranges: b - a.
        drop_path_rate: stochastic depth.
        chunkwise_recurrents: whether a stage's attention is decomposed.
        layerscales: whether a stage's branches are scaled.
        layer_init_values: initial scale.
        use_checkpoint: recompute blocks in the backward pass.
        norm_eval: freeze the batch norms. The authors' configs say so, but their code does not do
            it, so the default here is not to.
        init_cfg: mmengine's; its ``checkpoint`` is loaded by :meth:`init_weights`.
    """

    def __init__(
        self,
        in_chans: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 8, 2),
        num_heads: Sequence[int] = (4, 4, 8, 16),
        init_values: Sequence[float] = (2, 2, 2, 2),
        heads_ranges: Sequence[float] = (4, 4, 6, 6),
        mlp_ratios: Sequence[float] = (3, 3, 3, 3),
        drop_path_rate: float = 0.1,
        chunkwise_recurrents: Sequence[bool] = (True, True, False, False),
        layerscales: Sequence[bool] = (False, False, False, False),
        layer_init_values: float = 1e-6,
        use_checkpoint: bool = False,
        norm_eval: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.init_cfg = init_cfg
        self.config = RMTBackboneConfig(
            channels=in_chans,
            out_indices=tuple(out_indices),
            dims=tuple(embed_dims),
            depths=tuple(depths),
            heads=tuple(num_heads),
            decay_start=tuple(init_values),
            decay_spread=tuple(heads_ranges),
            mlp_ratios=tuple(mlp_ratios),
            drop_path=drop_path_rate,
            decomposed=tuple(chunkwise_recurrents),
            layer_scale=tuple(layerscales),
            layer_scale_init=layer_init_values,
            frozen_batch_norm=norm_eval,
        )
        self.backbone = RMTBackbone(self.config)
        self.backbone.set_grad_checkpointing(use_checkpoint)

    def init_weights(self, pretrained: str | None = None) -> None:
        """Load the authors' classifier or detector; without a file, keep the fresh weights."""
        pretrained = pretrained or (self.init_cfg or {}).get("checkpoint")
        if pretrained is None:
            return
        from attention_core import CheckpointError, read_checkpoint

        from rmt.official import convert

        config, state = convert(
            read_checkpoint(pretrained),
            RMTBackboneConfig,
            heads=self.config.heads,
            decay_start=self.config.decay_start,
            decay_spread=self.config.decay_spread,
            decomposed=self.config.decomposed,
            out_indices=self.config.out_indices,
        )
        if (config.dims, config.depths) != (self.config.dims, self.config.depths):
            raise CheckpointError(
                f"{pretrained} has dims {config.dims} and depths {config.depths}, the backbone "
                f"{self.config.dims} and {self.config.depths}"
            )
        self.backbone.load_state_dict(state)

    def forward(
        self, images: Float[Tensor, "b channels height width"]
    ) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Maps of strides 4, 8, 16 and 32."""
        return self.backbone(images)


def register(registry: Any, name: str = "RMT") -> None:
    """Enter the backbone into a registry of mmengine or mmcv (``mmdet.registry.MODELS``)."""
    registry.register_module(name=name, module=DenseRMT, force=True)
