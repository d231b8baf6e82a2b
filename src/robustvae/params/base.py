"""What every section is made of: strict, frozen, and kinds of numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PositiveReal = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeReal = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Severity = Annotated[int, Field(ge=1, le=5)]


# YAML has lists, not tuples: strictness is lifted for the outer type only.
Numbers = Annotated[tuple[Finite, ...], Strict(False), Field(min_length=1)]
Widths = Annotated[tuple[Positive, ...], Strict(False), Field(min_length=1)]
Epochs = Annotated[tuple[Positive, ...], Strict(False)]
Classes = Annotated[tuple[Natural, ...], Strict(False), Field(min_length=1)]
Severities = Annotated[tuple[Severity, ...], Strict(False), Field(min_length=1)]


class Settings(BaseModel):
    """Base of the sections: every key is required; unknown keys and conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
