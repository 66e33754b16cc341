"""Every shape annotation of the workspace is checked while the tests run."""

import functools
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception
from jaxtyping import install_import_hook

ROOT = Path(__file__).parent
MEMBERS = sorted(p.parent.name for p in ROOT.glob("*/*/pyproject.toml"))


def shape_checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``beartype``, but for methods that return ``Self``, and for code that is being compiled."""
    try:
        checked = beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
    except BeartypeDecorHintPep673Exception:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (function if torch.compiler.is_compiling() else checked)(*args, **kwargs)

    return call


checker = types.ModuleType("shape_checker")
checker.shape_checked = shape_checked  # type: ignore[attr-defined]
sys.modules["shape_checker"] = checker
install_import_hook(MEMBERS, "shape_checker.shape_checked")
