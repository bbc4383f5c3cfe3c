"""codeset-engine: medical code look-up and grouping.

    import engine

    library = engine.open()
    found = library.validate("icd10cm", "A00.0", date=20261001)
    print(found.status.name, found.title)

The layers, each knowing only those before it:

* ``engine.errors``, ``engine.tables``: the errors and the plain tables that importers hand over;
* ``engine.pack``: releases as directories of verified files;
* ``engine._core``, ``engine._msdrg``, ``engine._mce``: look-up, grouping and editing over mapped arrays, compiled,
  without the GIL;
* ``engine.codes``, ``engine.drg``, ``engine.explain``, ``engine.mce``: the same for people, with typed results;
* ``engine.library``: which release answers for a system and a date;
* ``engine.server``: all of it over gRPC. ``engine.client`` talks to that and knows none of the above but
  the errors.

Importing this package loads the errors only, so that a service that embeds the client carries neither NumPy
nor the core; every other name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import *  # noqa: F403 - the errors are part of this interface, all of them

if TYPE_CHECKING:
    from .codes import Axis as Axis
    from .codes import CodeInfo as CodeInfo
    from .codes import CodeSystem as CodeSystem
    from .codes import NoteInfo as NoteInfo
    from .codes import Status as Status
    from .codes import Subsumption as Subsumption
    from .codes import Validation as Validation
    from .codes import ValidationColumns as ValidationColumns
    from .drg import DrgResult as DrgResult
    from .drg import DrgResults as DrgResults
    from .drg import GroupingOptions as GroupingOptions
    from .drg import InpatientClaim as InpatientClaim
    from .drg import MsdrgGrouper as MsdrgGrouper
    from .explain import Explanation as Explanation
    from .hcc import HccResult as HccResult
    from .hcc import HccResults as HccResults
    from .hcc import HccScorer as HccScorer
    from .hcc import PaymentFactors as PaymentFactors
    from .hcc import RiskMember as RiskMember
    from .hcc import ScoringOptions as ScoringOptions
    from .library import Library as Library
    from .library import ReleaseInfo as ReleaseInfo
    from .library import open as open
    from .mce import EditedAndGrouped as EditedAndGrouped
    from .mce import EditingOptions as EditingOptions
    from .mce import EditResult as EditResult
    from .mce import EditResults as EditResults
    from .mce import MceEdit as MceEdit
    from .mce import MceEditor as MceEditor
    from .weights import DrgWeight as DrgWeight
    from .weights import DrgWeights as DrgWeights

_LAZY = {
    "Axis": "codes",
    "CodeInfo": "codes",
    "CodeSystem": "codes",
    "NoteInfo": "codes",
    "Status": "codes",
    "Subsumption": "codes",
    "Validation": "codes",
    "ValidationColumns": "codes",
    "DrgResult": "drg",
    "DrgResults": "drg",
    "GroupingOptions": "drg",
    "InpatientClaim": "drg",
    "MsdrgGrouper": "drg",
    "Explanation": "explain",
    "HccResult": "hcc",
    "HccResults": "hcc",
    "HccScorer": "hcc",
    "PaymentFactors": "hcc",
    "RiskMember": "hcc",
    "ScoringOptions": "hcc",
    "Library": "library",
    "ReleaseInfo": "library",
    "open": "library",
    "EditResult": "mce",
    "EditResults": "mce",
    "EditedAndGrouped": "mce",
    "EditingOptions": "mce",
    "MceEdit": "mce",
    "MceEditor": "mce",
    "DrgWeight": "weights",
    "DrgWeights": "weights",
}

__all__ = [*errors.__all__, *_LAZY]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
