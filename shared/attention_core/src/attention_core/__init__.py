"""What the papers of formers share."""

from attention_core.attention import attend, attention_weights, cached_per_size, split_heads
from attention_core.channels import channel_cosines, mix_channels
from attention_core.checkpoints import (
    Checkpoint,
    CheckpointError,
    load_state,
    read_checkpoint,
    rename,
    renew_heads,
)
from attention_core.config import (
    from_dict,
    replace,
    require,
    require_choice,
    require_fraction,
    require_positive,
    to_dict,
)
from attention_core.counting import count_flops, count_parameters, flops_of
from attention_core.dropout import Dropout, DropPath, random_keep
from attention_core.extras import needs_extra, one_line_errors
from attention_core.files import atomic_directory, atomic_path, write_text
from attention_core.golden import GoldenCase, golden_cases
from attention_core.linear import (
    GELU,
    FeedForward,
    PointwiseConv,
    TokenConv,
    TokenLinear,
    gelu_linear,
    norm_linear,
    pointwise,
    token_linear,
)
from attention_core.model import PaperModel
from attention_core.paper import (
    Benchmark,
    Claim,
    Evidence,
    Paper,
    Run,
    find_claim,
    growth_exponent,
)
from attention_core.rectangles import DynamicPositionBias, RectangleAttention
from attention_core.series import standardise
from attention_core.strips import in_strips
from attention_core.super_resolution import (
    SuperResolver,
    initialise_linear,
    learned_positions,
    require_scale,
    upsampler,
    upsampling_scale,
)
from attention_core.windows import (
    WindowAttention,
    WindowGrid,
    convolve,
    pad_heads,
    relative_position_bias,
    relative_position_index,
    window_attention,
)

__all__ = [
    "GELU",
    "Benchmark",
    "Checkpoint",
    "CheckpointError",
    "Claim",
    "DropPath",
    "Dropout",
    "DynamicPositionBias",
    "Evidence",
    "FeedForward",
    "GoldenCase",
    "Paper",
    "PaperModel",
    "PointwiseConv",
    "RectangleAttention",
    "Run",
    "SuperResolver",
    "TokenConv",
    "TokenLinear",
    "WindowAttention",
    "WindowGrid",
    "atomic_directory",
    "atomic_path",
    "attend",
    "attention_weights",
    "cached_per_size",
    "channel_cosines",
    "convolve",
    "count_flops",
    "count_parameters",
    "find_claim",
    "flops_of",
    "from_dict",
    "gelu_linear",
    "golden_cases",
    "growth_exponent",
    "in_strips",
    "initialise_linear",
    "learned_positions",
    "load_state",
    "mix_channels",
    "needs_extra",
    "norm_linear",
    "one_line_errors",
    "pad_heads",
    "pointwise",
    "random_keep",
    "read_checkpoint",
    "relative_position_bias",
    "relative_position_index",
    "rename",
    "renew_heads",
    "replace",
    "require",
    "require_choice",
    "require_fraction",
    "require_positive",
    "require_scale",
    "split_heads",
    "standardise",
    "to_dict",
    "token_linear",
    "upsampler",
    "upsampling_scale",
    "window_attention",
    "write_text",
]
