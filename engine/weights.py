"""Relative weights and mean lengths of stay of MS-DRGs (CMS Table 5 of the IPPS final rule), one fiscal year a pack.

A number is a ``Decimal`` with the digits that CMS prints: payment is a product of it, and binary floating point would
round it before the first multiplication. What a table does not have is None, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from .compile_weights import ABSENT, LARGEST
from .pack import Manifest, Pack

__all__ = ["SYSTEM", "DrgWeight", "DrgWeights"]

SYSTEM = "msdrg-weights"
"""System id of the packs."""

_COLUMNS = {
    "relative_weight": "<i4",
    "weight_before_cap": "<i4",
    "geometric_mean_los": "<i4",
    "arithmetic_mean_los": "<i4",
    "post_acute_transfer": "i1",
    "special_pay": "i1",
}


@dataclass(frozen=True, slots=True)
class DrgWeight:
    """What CMS Table 5 gives for one MS-DRG in one fiscal year.

    ``release``: the fiscal year, "2026". ``relative_weight``: the weight that pays, after the 10 % cap on yearly
    reductions where the table has one; ``weight_before_cap``: the one before. ``geometric_mean_los``,
    ``arithmetic_mean_los``: mean length of stay in days. ``post_acute_transfer``, ``special_pay``: whether the
    post-acute care transfer policy and its special payment apply. None: the table does not say.
    """

    release: str
    drg: int
    relative_weight: Decimal
    weight_before_cap: Decimal | None
    geometric_mean_los: Decimal | None
    arithmetic_mean_los: Decimal | None
    post_acute_transfer: bool | None
    special_pay: bool | None
    _json: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made once: every answer with this DRG shows it.
        object.__setattr__(self, "_json", self._to_dict())

    def __hash__(self) -> int:
        # Groupings are keys; hashing four decimals would be most of the time of that.
        return self.drg

    def to_dict(self) -> dict[str, Any]:
        """Return it in the shape of its proto3 JSON: decimals as text, what is None left out."""
        return self._json.copy()

    def _to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"release": self.release, "relative_weight": str(self.relative_weight)}
        for name in ("weight_before_cap", "geometric_mean_los", "arithmetic_mean_los"):
            value = getattr(self, name)
            if value is not None:
                found[name] = str(value)
        for name in ("post_acute_transfer", "special_pay"):
            value = getattr(self, name)
            if value is not None:
                found[name] = value
        return found


class DrgWeights(Mapping[int, DrgWeight]):
    """The weights of one fiscal year, by DRG. Safe to share between threads.

    Raises PackCorruptError if the arrays of ``pack`` do not fit together.
    """

    def __init__(self, pack: Pack) -> None:
        self.manifest: Manifest = pack.manifest
        drgs = pack.array("drg", "<i2")
        if len(drgs) and (drgs[0] < 0 or drgs[-1] > 999 or (np.diff(drgs) <= 0).any()):
            raise pack.corrupt("drg.npy", "its DRGs are not ascending numbers below 1000")
        columns = {}
        for name, dtype in _COLUMNS.items():
            column = pack.array(name, dtype)
            low = 0 if name == "relative_weight" else ABSENT
            if len(column) != len(drgs):
                raise pack.corrupt(f"{name}.npy", f"it has {len(column)} elements for {len(drgs)} DRGs")
            high = LARGEST if dtype == "<i4" else 2
            if len(column) and (column.min() < low or column.max() >= high):
                raise pack.corrupt(f"{name}.npy", f"it has numbers outside {low} to {high}")
            columns[name] = column.tolist()
        self._at = {drg: i for i, drg in enumerate(drgs.tolist())}
        self._columns = columns
        # Made when asked for: a claim needs two of eight hundred.
        self._made: dict[int, DrgWeight] = {}

    @property
    def release(self) -> str:
        """The fiscal year, "2026"."""
        return self.manifest.release

    def __getitem__(self, drg: int) -> DrgWeight:
        made = self._made.get(drg)
        if made is None:
            # Two threads may both make it; the first one stays.
            made = self._made.setdefault(drg, self._weight(drg, self._at[drg]))
        return made

    def __iter__(self) -> Iterator[int]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)

    def _weight(self, drg: int, at: int) -> DrgWeight:
        columns = self._columns
        return DrgWeight(
            self.release,
            drg,
            _exact(columns["relative_weight"][at], 4),
            _decimal(columns["weight_before_cap"][at], 4),
            _decimal(columns["geometric_mean_los"][at], 1),
            _decimal(columns["arithmetic_mean_los"][at], 1),
            _flag(columns["post_acute_transfer"][at]),
            _flag(columns["special_pay"][at]),
        )

    def __repr__(self) -> str:
        return f"<MS-DRG weights of FY{self.release}: {len(self)} DRGs>"


def _decimal(number: int, places: int) -> Decimal | None:
    return None if number == ABSENT else _exact(number, places)


def _exact(number: int, places: int) -> Decimal:
    """Return ten-thousandths as a decimal with at least ``places`` decimals, more only where they are not zero."""
    # From text, which is exact; arithmetic would round as the caller's decimal context says.
    whole, part = divmod(number, 10_000)
    decimals = f"{part:04d}"
    return Decimal(f"{whole}.{decimals[:places]}{decimals[places:].rstrip('0')}")


def _flag(number: int) -> bool | None:
    return None if number == ABSENT else bool(number)
