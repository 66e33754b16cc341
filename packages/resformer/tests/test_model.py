import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resformer import Resformer, ResformerConfig


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), tokens=st.integers(1, 17), heads=st.sampled_from([1, 2, 4]))
def test_any_number_of_tokens(batch, tokens, heads):
    model = Resformer(ResformerConfig(heads=heads))
    assert model(torch.randn(batch, tokens, 8)).shape == (batch, 4)


def test_the_order_of_tokens_does_not_matter():
    torch.manual_seed(0)
    model = Resformer(ResformerConfig()).eval()
    x = torch.randn(2, 7, 8)
    torch.testing.assert_close(model(x.flip(1)), model(x), atol=1e-5, rtol=1e-5)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads=5: must divide dim=32"):
        ResformerConfig(heads=5)
