"""Frozen configurations: checks that name the field, and the round trip through JSON."""

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def require(config: object, field: str, allowed: bool, rule: str) -> None:
    """Raise ``ValueError`` naming the field, its value and the rule unless ``allowed``."""
    if not allowed:
        value = getattr(config, field)
        raise ValueError(f"{type(config).__name__}.{field}={value!r}: {rule}")


def require_positive(config: object, *fields: str) -> None:
    """Each field is an integer of at least 1 (or a tuple of such integers)."""
    for field in fields:
        value = getattr(config, field)
        values = value if isinstance(value, tuple) else (value,)
        integral = all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)
        require(config, field, integral and bool(values), "must be an integer of at least 1")


def require_fraction(config: object, *fields: str) -> None:
    """Each field is a number in [0, 1), such as a dropout rate."""
    for field in fields:
        value = getattr(config, field)
        require(config, field, 0 <= value < 1, "must be in [0, 1)")


def require_choice(config: object, field: str, choices: Collection[Any]) -> None:
    """The field is one of ``choices``."""
    known = ", ".join(repr(choice) for choice in choices)
    require(config, field, getattr(config, field) in choices, f"must be one of {known}")


def replace(config: T, **changes: Any) -> T:
    """``dataclasses.replace`` that names the known fields when one is misspelt."""
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    if unknown := sorted(set(changes) - set(known)):
        raise ValueError(
            f"{type(config).__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of ``config`` as JSON takes them (tuples become lists)."""
    return dataclasses.asdict(config)


def from_dict(kind: type[T], data: Mapping[str, Any] | T) -> T:
    """The configuration that ``to_dict`` wrote: lists become tuples, dicts nested dataclasses.

    Raises:
        ValueError: for a field that ``kind`` does not have, or a value that it refuses.
    """
    if isinstance(data, kind):
        return data
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__}: needs a mapping of its fields, got {data!r}")
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(set(data) - set(known)):
        raise ValueError(
            f"{kind.__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return kind(**{name: _restore(hints[name], value) for name, value in data.items()})


def _restore(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [option for option in arguments if option is not type(None)]
        return value if value is None or len(inner) != 1 else _restore(inner[0], value)
    if origin is tuple and isinstance(value, list | tuple):
        each = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(_restore(h, v) for h, v in zip(each, value, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast(type, hint), value)
    return value
