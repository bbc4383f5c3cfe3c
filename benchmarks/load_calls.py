"""What the load driver asks, and how it knows that an answer is right.

Requests are encoded beforehand. The first answer to each is decoded and compared field by field: groupings with the
answers of the CMS software (``tests/golden``), validations, edits and scores with those of the engine in process. An
answer that has the bytes of one compared before is right; so every answer is compared, at the price of comparing bytes.
A random sample is decoded and compared all the same.
"""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

import engine
from engine._pb.codeset.v1 import grouping_pb2, scoring_pb2, terminology_pb2
from engine.client import to_dict
from engine.rpc import GROUPING, methods

from .load_server import ECHO

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"

BATCH = 5_000
"""Claims, or codes, in a batch."""

STREAMED = 4
"""Requests of one stream."""

STREAM_BATCH = 1_000
"""Claims in a request of a stream."""

RECHECK = 1000
"""One answer in so many is decoded although its bytes are right."""

RECHECKED = 25
"""Items of such an answer, chosen at random, that are compared."""

_NOT_REFERENCED = {"version", "mdc_title", "drg_title", "weight"}
_OF_TYPE = {"sdx_severity": "SEVERITY_", "initial_severity": "SEVERITY_USAGE_", "final_severity": "SEVERITY_USAGE_"}


class WrongAnswerError(Exception):
    """An answer that is not the reference's. Says where, never what."""


class Asking:
    """One kind of call. ``items``: claims or codes in a call. ``parts``: messages each way; more than one: a stream.

    ``decode`` returns the results in the bytes of an answer, ``differs`` says whether result ``position`` of the
    answer to request ``index`` is not the reference's.
    """

    def __init__(
        self,
        name: str,
        path: str,
        requests: list[bytes],
        decode: Callable[[bytes], Sequence[Any]],
        differs: Callable[[int, int, Any], bool],
        *,
        items: int = 1,
        parts: int = 1,
    ) -> None:
        self.name = name
        self.path = path
        self.items = items
        self.parts = parts
        self.requests = requests
        self.compared = 0
        """Items whose answer was compared."""
        self.decoded = 0
        """Of these, items that were compared field by field."""
        self._decode = decode
        self._differs = differs
        self._right: dict[int, bytes] = {}

    def choose(self, rng: random.Random) -> list[int]:
        """Return which requests to send in one call."""
        return [rng.randrange(len(self.requests)) for _ in range(self.parts)]

    def unknown(self) -> list[int]:
        """Return the requests that have had no answer."""
        return [index for index in range(len(self.requests)) if index not in self._right]

    def check(self, index: int, raw: bytes, rng: random.Random) -> None:
        """Compare the answer to request ``index``. Raises WrongAnswerError."""
        size = self.items // self.parts
        known = self._right.get(index) == raw
        if not known or rng.randrange(RECHECK) == 0:
            try:
                results = self._decode(raw)
            except ValueError:
                raise WrongAnswerError(f"{self.name}: not a message") from None
            if len(results) != size:
                raise WrongAnswerError(f"{self.name}: {len(results)} results, expected {size}")
            positions = rng.sample(range(size), min(size, RECHECKED)) if known else range(size)
            for position in positions:
                if self._differs(index, position, results[position]):
                    raise WrongAnswerError(f"{self.name}: result {position} is not the reference's")
            self.decoded += len(positions)
            self._right[index] = raw
        self.compared += size


class Questions:
    """The kinds of calls, made as they are first asked for. ``store``: packs that answer in process."""

    def __init__(self, store: Path | None = None, seed: int = 1) -> None:
        self.claims, self.answers = _read("inpatient_claims"), _read("msdrg_answers")
        self.members = _read("hcc_members")
        self.library = engine.open(store)
        self._rng = random.Random(seed)
        self._made: dict[str, Asking] = {}

    def __getitem__(self, name: str) -> Asking:
        if name not in self._made:
            self._made[name] = KINDS[name](self, name)
        return self._made[name]

    def of_batch(self, index: int, size: int, of: int = 0) -> list[int]:
        """Return the items of batch ``index``: all of the claims, or of as many as ``of``, in turn."""
        return [(index * size + i) % (of or len(self.claims)) for i in range(size)]


def _read(name: str) -> list[dict[str, Any]]:
    with lzma.open(GOLDEN / f"{name}.ndjson.xz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _enum(name: str, value: str) -> str:
    """Return an enumeration value of field ``name`` without the prefix of its type."""
    return value.removeprefix(_OF_TYPE.get(name, f"{name.upper()}_"))


def plain(result: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """Bring a result into the form of the reference answers, without what level of detail DRG leaves out."""
    answer: dict[str, Any] = {}
    for name, value in result.items():
        if name in _NOT_REFERENCED or (not full and name in ("diagnoses", "procedures")):
            continue
        if name == "hacs":
            value = sorted(f"{hac['name']}:{hac['status'].removeprefix('HAC_CRITERIA_')}" for hac in value)
        elif name == "hac_usage":
            value = sorted(_enum(name, usage) for usage in value)
        elif isinstance(value, list):
            value = [plain(item, full=full) for item in value]
        elif isinstance(value, dict):
            value = plain(value, full=full)
        elif isinstance(value, str) and name not in ("claim_id", "code"):
            value = _enum(name, value)
        answer[name] = value
    return answer


def _options(full: bool) -> grouping_pb2.DrgOptions:
    return grouping_pb2.DrgOptions(detail=grouping_pb2.DRG_DETAIL_FULL if full else grouping_pb2.DRG_DETAIL_DRG)


def _ungrouped(questions: Questions, claim: int, result: Any, full: bool) -> bool:
    """Whether ``result`` is not what the CMS software answers to claim number ``claim``."""
    expected = questions.answers[claim]
    if not full:
        expected = {name: value for name, value in expected.items() if name not in ("diagnoses", "procedures")}
    return plain(to_dict(result), full=full) != expected


def _echo(_: Questions, name: str) -> Asking:
    """An empty message."""
    return Asking(name, ECHO, [b""], lambda raw: [raw], lambda index, position, raw: raw != b"")


def _group(questions: Questions, name: str) -> Asking:
    requests = [
        grouping_pb2.GroupDrgRequest(
            claim=ParseDict(claim, grouping_pb2.InpatientClaim()), options=_options(True)
        ).SerializeToString()
        for claim in questions.claims
    ]

    return Asking(
        name,
        "/codeset.v1.GroupingService/GroupDrg",
        requests,
        lambda raw: [grouping_pb2.GroupDrgResponse.FromString(raw).result],
        lambda index, position, result: _ungrouped(questions, index, result, True),
    )


def _batch_group(full: bool, size: int = BATCH, batches: int = 4, parts: int = 1) -> Callable[[Questions, str], Asking]:
    def make(questions: Questions, name: str) -> Asking:
        messages = [ParseDict(claim, grouping_pb2.InpatientClaim()) for claim in questions.claims]
        requests = [
            grouping_pb2.BatchGroupDrgRequest(
                claims=[messages[i] for i in questions.of_batch(batch, size)], options=_options(full)
            ).SerializeToString()
            for batch in range(batches)
        ]

        batched = [questions.of_batch(batch, size) for batch in range(batches)]
        method = "BatchGroupDrg" if parts == 1 else "StreamGroupDrg"
        return Asking(
            name,
            f"/codeset.v1.GroupingService/{method}",
            requests,
            lambda raw: grouping_pb2.BatchGroupDrgResponse.FromString(raw).results,
            lambda index, position, result: _ungrouped(questions, batched[index][position], result, full),
            items=size * parts,
            parts=parts,
        )

    return make


def _codes(questions: Questions, count: int) -> list[tuple[str, int]]:
    """Return ``count`` diagnoses and the days they were given."""
    given = [(code, claim["discharge_date"]) for claim in questions.claims for code in claim["diagnoses"]]
    return questions._rng.sample(given, min(count, len(given)))


def _invalid(questions: Questions, asked: tuple[str, int], result: Any) -> bool:
    """Whether ``result`` is not what the engine answers in process."""
    code, date = asked
    expected = questions.library.validate("icd10cm", code, date=date).to_dict()
    expected["status"] = f"CODE_STATUS_{expected['status']}"
    # A day that is none is 0 in a message, None in process.
    got = {name: value or None for name, value in to_dict(result).items()}
    return got != {name: value or None for name, value in expected.items()}


def _validate(questions: Questions, name: str) -> Asking:
    asked = _codes(questions, 2_000)
    requests = [
        terminology_pb2.ValidateCodeRequest(system="icd10cm", code=code, date=date).SerializeToString()
        for code, date in asked
    ]

    return Asking(
        name,
        "/codeset.v1.TerminologyService/ValidateCode",
        requests,
        lambda raw: [terminology_pb2.ValidateCodeResponse.FromString(raw).result],
        lambda index, position, result: _invalid(questions, asked[index], result),
    )


def _batch_validate(questions: Questions, name: str) -> Asking:
    asked = _codes(questions, BATCH)
    batches = [asked, asked[::-1]]
    requests = [
        terminology_pb2.BatchValidateCodesRequest(
            system="icd10cm",
            items=[terminology_pb2.CodeToValidate(code=code, date=date) for code, date in batch],
        ).SerializeToString()
        for batch in batches
    ]

    return Asking(
        name,
        "/codeset.v1.TerminologyService/BatchValidateCodes",
        requests,
        lambda raw: terminology_pb2.BatchValidateCodesResponse.FromString(raw).results,
        lambda index, position, result: _invalid(questions, batches[index][position], result),
        items=len(asked),
    )


def _edit(questions: Questions, name: str) -> Asking:
    # Half of them are claims with edits of every kind.
    claims = _read("mce_claims") + questions.claims[:3_000]
    messages = [ParseDict(claim, grouping_pb2.InpatientClaim()) for claim in claims]
    expected = [result.to_dict() for result in questions.library.edit_claims_many(claims)]
    return _as_in_process(questions, name, "claim", messages, expected)


def _score(questions: Questions, name: str) -> Asking:
    messages = [ParseDict(member, scoring_pb2.RiskMember()) for member in questions.members]
    expected = [result.to_dict() for result in questions.library.score_hcc_many(questions.members)]
    return _as_in_process(questions, name, "member", messages, expected)


def _as_in_process(
    questions: Questions, name: str, item: str, messages: Sequence[Any], expected: Sequence[Any]
) -> Asking:
    """Ask for one of ``messages``, which a request has as ``item``; or, by a name with Batch, for many. ``expected``:
    what the engine answers to each in process.
    """
    path = f"/codeset.v1.GroupingService/{name}"
    (method,) = (method for method in methods(GROUPING) if method.name == name)
    if not name.startswith("Batch"):
        return Asking(
            name,
            path,
            [method.request(**{item: message}).SerializeToString() for message in messages],
            lambda raw: [method.response.FromString(raw).result],  # type: ignore[attr-defined]
            lambda index, position, result: to_dict(result) != expected[index],
        )
    batched = [questions.of_batch(batch, BATCH, len(messages)) for batch in range(2)]
    return Asking(
        name,
        path,
        [method.request(**{f"{item}s": [messages[i] for i in batch]}).SerializeToString() for batch in batched],
        lambda raw: method.response.FromString(raw).results,  # type: ignore[attr-defined]
        lambda index, position, result: to_dict(result) != expected[batched[index][position]],
        items=BATCH,
    )


UNARY = ("ValidateCode", "GroupDrg", "EditClaim", "ScoreHcc")

KINDS: dict[str, Callable[[Questions, str], Asking]] = {
    "echo": _echo,
    "ValidateCode": _validate,
    "GroupDrg": _group,
    "EditClaim": _edit,
    "ScoreHcc": _score,
    "BatchGroupDrg, DRG": _batch_group(False),
    "BatchGroupDrg, full": _batch_group(True),
    "BatchValidateCodes": _batch_validate,
    "BatchEditClaims": _edit,
    "BatchScoreHcc": _score,
    "StreamGroupDrg, full": _batch_group(True, STREAM_BATCH, 8, STREAMED),
}
