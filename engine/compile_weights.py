"""Compile MS-DRG relative weights into the arrays that ``engine.weights`` reads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import SourceFormatError
from .tables import WeightTables

__all__ = ["ABSENT", "LARGEST", "compile_weights"]

ABSENT: Final = -1
"""What the source does not give. Zero is never used for that."""
LARGEST: Final = 10_000_000
"""No weight and no mean length of stay reaches 1,000 (in ten-thousandths)."""


def compile_weights(tables: WeightTables) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return (arrays, manifest facts) for a pack of kind ``weights``. All arrays have one element a DRG, ascending.

    Raises SourceFormatError if a DRG is there twice, or a number is out of range.
    """
    rows = sorted(tables.rows, key=lambda row: row.drg)
    for before, row in pairwise(rows):
        if before.drg == row.drg:
            raise SourceFormatError(f"DRG {row.drg:03d} has two rows in the weights of {tables.release}; expected one")

    def column(name: str, dtype: str, values: Iterable[int | bool | None], high: int) -> npt.NDArray[Any]:
        found = [ABSENT if value is None else int(value) for value in values]
        wrong = [value for value in found if not ABSENT <= value < high]
        if wrong:
            raise SourceFormatError(f"{name} {wrong[0]} in the weights of {tables.release}; expected less than {high}")
        return np.array(found, dtype)

    arrays = {
        "drg": column("DRG", "<i2", (row.drg for row in rows), 1000),
        "relative_weight": column("weight", "<i4", (row.relative_weight for row in rows), LARGEST),
        "weight_before_cap": column("weight", "<i4", (row.weight_before_cap for row in rows), LARGEST),
        "geometric_mean_los": column("mean LOS", "<i4", (row.geometric_mean_los for row in rows), LARGEST),
        "arithmetic_mean_los": column("mean LOS", "<i4", (row.arithmetic_mean_los for row in rows), LARGEST),
        "post_acute_transfer": column("flag", "i1", (row.post_acute_transfer for row in rows), 2),
        "special_pay": column("flag", "i1", (row.special_pay for row in rows), 2),
    }
    facts = {
        "drgs": len(rows),
        "post_acute_transfer": sum(row.post_acute_transfer is True for row in rows),
        "special_pay": sum(row.special_pay is True for row in rows),
        **tables.facts,
    }
    return arrays, facts
