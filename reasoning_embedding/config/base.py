"""What every section of a configuration shares."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
#: A decay rate of moments: torch refuses 1.
Decay = Annotated[float, Field(ge=0, lt=1)]
#: A text that says something, such as a path.
Text = Annotated[str, Field(min_length=1)]
#: What facts of the miniature world are about.
WorldRelation = Literal["city", "food", "job", "color", "pet"]
#: A name that becomes a folder: letters, digits, ``.``, ``_`` and ``-``; it cannot leave its parent.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=120)]


class Section(BaseModel):
    """A frozen section: unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,
    )


def conflict(message: str, *path: str | int) -> PydanticCustomError:
    """Return the error of a validator, with the key path (below its section) that the message is about."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "path": path})
