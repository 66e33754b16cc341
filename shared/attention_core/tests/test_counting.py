import torch
from attention_core import count_flops, count_parameters, flops_of
from torch import nn


def test_parameters_are_counted_once_and_frozen_ones_apart() -> None:
    first = nn.Linear(3, 4)
    tied = nn.Sequential(first, nn.Linear(4, 3), first)
    assert count_parameters(tied) == 3 * 4 + 4 + 4 * 3 + 3
    first.requires_grad_(False)
    assert count_parameters(tied, trainable=True) == 4 * 3 + 3


def test_flops_are_two_per_multiply_add_on_any_device() -> None:
    layer = nn.Linear(8, 16)
    assert count_flops(layer, torch.randn(5, 8)) == 2 * 5 * 8 * 16
    assert flops_of(lambda: nn.Linear(8, 16), lambda: {"input": torch.randn(5, 8)}) == 1280
