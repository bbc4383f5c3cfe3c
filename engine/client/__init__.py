"""The thin client: grpcio and protobuf only.

Contract
--------
* Importing this package loads neither NumPy nor the core nor the server.
* Answers are the messages of the API (``DrgResult``, ``CodeValidation``, …): one set of names in every
  language, typed, and without a copy. ``to_dict`` gives the proto3 JSON of any of them. Enumerations are
  numbers; their names come from the classes here (``ReturnCode.Name(grouping.return_code)``,
  ``CodeStatus.CODE_STATUS_VALID``).
* Claims and codes may be given as messages, as mappings with the same names, or as columns by these names.
* Errors are those of ``engine.errors``. In a batch, what is wrong with one item is in its result
  (``result.HasField("error")``), and ``raise_for_error`` raises it; the others are answered.
* Only UNAVAILABLE is retried, which is safe: every method only reads.
"""

from __future__ import annotations

from .._pb.codeset.v1.catalog_pb2 import Release, Source
from .._pb.codeset.v1.editing_pb2 import (
    AgeConflict,
    CodeEdits,
    EditCount,
    EditInfo,
    EditResult,
    EditType,
    MceEdit,
    MceOptions,
)
from .._pb.codeset.v1.error_pb2 import ItemError
from .._pb.codeset.v1.grouping_pb2 import (
    AdmitDiagnosisFlag,
    AffectFlags,
    AffectsDrg,
    DiagnosisResult,
    DrgDetail,
    DrgExplanation,
    DrgOptions,
    DrgResult,
    Grouping,
    Hac,
    HacCriteria,
    HacStatus,
    HacUsage,
    HospitalStatus,
    InpatientClaim,
    MedSurg,
    PoaError,
    ProcedureResult,
    ReturnCode,
    Severity,
    SeverityUsage,
    Sex,
    TieBreaker,
)
from .._pb.codeset.v1.scoring_pb2 import HccDetail, HccOptions, HccResult, PaymentFactors, RiskMember
from .._pb.codeset.v1.terminology_pb2 import (
    Axis,
    CodeStatus,
    CodeToValidate,
    CodeValidation,
    Concept,
    LookupResponse,
    NodeKind,
    Note,
    NoteKind,
)
from ._channel import DEFAULT_TARGET
from ._columns import Frame
from ._editing import EditOptionsLike
from ._errors import raise_for_error
from ._messages import ClaimLike, CodeLike, MemberLike, OptionsLike, to_dict
from ._requests import Subsumption
from ._scoring import HccOptionsLike
from .aio import AsyncClient
from .sync import Client

__all__ = [
    "DEFAULT_TARGET",
    "AdmitDiagnosisFlag",
    "AffectFlags",
    "AffectsDrg",
    "AgeConflict",
    "AsyncClient",
    "Axis",
    "ClaimLike",
    "Client",
    "CodeEdits",
    "CodeLike",
    "CodeStatus",
    "CodeToValidate",
    "CodeValidation",
    "Concept",
    "DiagnosisResult",
    "DrgDetail",
    "DrgExplanation",
    "DrgOptions",
    "DrgResult",
    "EditCount",
    "EditInfo",
    "EditOptionsLike",
    "EditResult",
    "EditType",
    "Frame",
    "Grouping",
    "Hac",
    "HacCriteria",
    "HacStatus",
    "HacUsage",
    "HccDetail",
    "HccOptions",
    "HccOptionsLike",
    "HccResult",
    "HospitalStatus",
    "InpatientClaim",
    "ItemError",
    "LookupResponse",
    "MceEdit",
    "MceOptions",
    "MedSurg",
    "MemberLike",
    "NodeKind",
    "Note",
    "NoteKind",
    "OptionsLike",
    "PaymentFactors",
    "PoaError",
    "ProcedureResult",
    "Release",
    "ReturnCode",
    "RiskMember",
    "Severity",
    "SeverityUsage",
    "Sex",
    "Source",
    "Subsumption",
    "TieBreaker",
    "raise_for_error",
    "to_dict",
]
