"""How a training stage's learning rate runs."""

from typing import Annotated, Literal

from msgspec import Meta

from trainwright.spec.quantity import Interval, NonNegativeFloat, PositiveFloat, Table


class LearningRate(Table, kw_only=True, frozen=True):
    peak: Annotated[PositiveFloat, Meta(description="Reached at the end of the warm-up.", examples=[3e-4])]
    final: Annotated[NonNegativeFloat | None, Meta(description="A tenth of the peak if absent.", examples=[3e-5])] = (
        None
    )
    warmup: Annotated[Interval, Meta(description="Steps of linear warm-up.")] = "0 steps"
    decay: Annotated[Literal["cosine", "linear", "constant"], Meta(description="From the peak to the final rate.")] = (
        "cosine"
    )
