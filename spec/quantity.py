"""What the spec's values are made of: quantities with units, names, paths, and the table that holds them."""

from typing import Annotated, Any

from msgspec import Meta, Struct


def _quantity(unit: str, ge: int | float, description: str, why: str | None = None) -> Meta:
    """A number that people write with a unit; `spec/units.py` knows the suffixes of each `unit`."""
    extra: dict[str, Any] = {"unit": unit}
    if why:
        extra["why"] = why
    return Meta(ge=ge, description=description, extra=extra, extra_json_schema={"x-unit": unit})


Count = Annotated[int, _quantity("count", 1, 'A positive count, such as 4096 or "4Ki".')]
Tokens = Annotated[int, _quantity("tokens", 1, 'A number of tokens, such as "2.34T" or "4Mi" (= 2^22).')]
Bytes = Annotated[int, _quantity("bytes", 0, 'A size, such as "80GiB".')]
Seconds = Annotated[float, _quantity("seconds", 0.0, 'A duration, such as "30min" or "40d".')]
BytesPerSecond = Annotated[float, _quantity("bandwidth", 1.0, 'A bandwidth, such as "200Gb/s" or "300GB/s".')]
Interval = Annotated[
    str,
    Meta(
        description='A number of steps or a duration, such as "500 steps" or "30min".',
        extra={"unit": "interval"},
        extra_json_schema={"x-unit": "interval"},
    ),
]
GpuHours = Annotated[
    str,
    Meta(description='Work between two failures, such as "50000 gpu-hours".', extra={"unit": "gpu-hours"}),
]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Meta(gt=0.0)]
NonNegativeFloat = Annotated[float, Meta(ge=0.0)]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Letters, digits, `.`, `-` and `_`.",
        extra={"alphabet": "a name begins with a letter or digit and goes on with letters, digits, `.`, `-` and `_`"},
    ),
]
Path = Annotated[str, Meta(min_length=1, extra={"path": True})]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """A TOML table."""
