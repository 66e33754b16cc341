from dataclasses import dataclass

import pytest
from attention_core import (
    from_dict,
    replace,
    require_choice,
    require_fraction,
    require_positive,
    to_dict,
)
from hypothesis import given
from hypothesis import strategies as st


@dataclass(frozen=True, kw_only=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Outer:
    depth: int = 2
    dims: tuple[int, ...] = (4, 8)
    pair: tuple[str, float] = ("a", 0.5)
    grid: tuple[tuple[int, int], ...] = ((1, 2),)
    rate: float = 0.1
    kind: str = "gelu"
    inner: Inner | None = None

    def __post_init__(self) -> None:
        require_positive(self, "depth", "dims")
        require_fraction(self, "rate")
        require_choice(self, "kind", ("gelu", "relu"))


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


@given(
    st.builds(
        Outer,
        depth=st.integers(1, 99),
        dims=sizes,
        pair=st.tuples(st.text(max_size=3), st.floats(0, 1)),
        grid=st.lists(st.tuples(st.integers(), st.integers()), max_size=3).map(tuple),
        inner=st.none() | st.builds(Inner, sizes=sizes),
    )
)
def test_round_trip_restores_tuples_and_nested_configurations(config: Outer) -> None:
    import json

    assert from_dict(Outer, json.loads(json.dumps(to_dict(config)))) == config


def test_messages_name_field_value_and_rule() -> None:
    with pytest.raises(ValueError, match=r"Outer\.depth=0: must be an integer of at least 1"):
        Outer(depth=0)
    with pytest.raises(ValueError, match=r"Outer\.depth=True"):
        Outer(depth=True)
    with pytest.raises(ValueError, match=r"Outer\.dims=\(4, 0\)"):
        Outer(dims=(4, 0))
    with pytest.raises(ValueError, match=r"Outer\.rate=1: must be in \[0, 1\)"):
        Outer(rate=1)
    with pytest.raises(ValueError, match=r"Outer\.kind='tanh': must be one of 'gelu', 'relu'"):
        Outer(kind="tanh")


def test_unknown_fields_are_named() -> None:
    with pytest.raises(ValueError, match="has no field dept; it has depth, dims"):
        replace(Outer(), dept=1)
    with pytest.raises(ValueError, match="has no field dept"):
        from_dict(Outer, {"dept": 1})
    with pytest.raises(TypeError, match="needs a mapping"):
        from_dict(Outer, [1])
