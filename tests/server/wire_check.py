"""A request answered on both ways: from bytes to bytes, and through the generated classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from engine import errors
from engine._pb.codeset.v1 import grouping_pb2, scoring_pb2, terminology_pb2
from engine.server.calls import Facts
from engine.server.services import Services

Outcome = tuple[Any, tuple[int, int, str]]
"""What a caller gets, or what is wrong; and what the log says."""


def outcome(answer: Callable[[Facts], Any]) -> Outcome:
    facts = Facts()
    try:
        got = answer(facts)
    except DecodeError:
        return "no protobuf", (0, 0, "")
    except errors.CodesetError as error:
        return (error.code, str(error), error.field), (facts.items, 0, "")
    return got, (facts.items, facts.errors, facts.releases)


def drg(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """BatchGroupDrg."""

    def through_messages(facts: Facts) -> bytes:
        request = grouping_pb2.BatchGroupDrgRequest.FromString(raw)
        return services.batch_group_drg(request, facts).SerializeToString()

    return outcome(lambda facts: services.from_bytes()["BatchGroupDrg"](raw, facts)), outcome(through_messages)


def edits(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """BatchEditClaims."""

    def through_messages(facts: Facts) -> bytes:
        request = grouping_pb2.BatchEditClaimsRequest.FromString(raw)
        return services.batch_edit_claims(request, facts).SerializeToString()

    def from_bytes(facts: Facts) -> bytes:
        got = services.from_bytes()["BatchEditClaims"](raw, facts)
        return through_messages(facts) if got is None else got

    return outcome(from_bytes), outcome(through_messages)


def edit(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """EditClaim."""

    def through_messages(facts: Facts) -> bytes:
        request = grouping_pb2.EditClaimRequest.FromString(raw)
        return services.edit_claim(request, facts).SerializeToString()

    def from_bytes(facts: Facts) -> bytes:
        got = services.from_bytes()["EditClaim"](raw, facts)
        if got is not None:
            return got
        assert (facts.items, facts.errors, facts.releases) == (1, 0, "")
        return through_messages(facts)

    return outcome(from_bytes), outcome(through_messages)


def drg_one(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """GroupDrg. What the way from bytes leaves to the other is none of its outcomes."""

    def through_messages(facts: Facts) -> bytes:
        request = grouping_pb2.GroupDrgRequest.FromString(raw)
        return services.group_drg(request, facts).SerializeToString()

    got, expected = outcome(lambda facts: services.from_bytes()["GroupDrg"](raw, facts)), outcome(through_messages)
    if got == (None, (1, 0, "")):
        got = expected
    return got, expected


def scores(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """BatchScoreHcc."""

    def through_messages(facts: Facts) -> bytes:
        request = scoring_pb2.BatchScoreHccRequest.FromString(raw)
        return services.batch_score_hcc(request, facts).SerializeToString()

    return outcome(lambda facts: services.from_bytes()["BatchScoreHcc"](raw, facts)), outcome(through_messages)


def score(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """ScoreHcc. Its way from bytes leaves what fails, and nothing else, to the other."""

    def through_messages(facts: Facts) -> bytes:
        request = scoring_pb2.ScoreHccRequest.FromString(raw)
        return services.score_hcc(request, facts).SerializeToString()

    got, expected = outcome(lambda facts: services.from_bytes()["ScoreHcc"](raw, facts)), outcome(through_messages)
    if got == (None, (1, 0, "")) and not isinstance(expected[0], bytes):
        got = expected
    return got, expected


def codes(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """BatchValidateCodes."""

    def through_messages(facts: Facts) -> bytes:
        request = terminology_pb2.BatchValidateCodesRequest.FromString(raw)
        return services.batch_validate_codes(request, facts).SerializeToString()

    return outcome(lambda facts: services.from_bytes()["BatchValidateCodes"](raw, facts)), outcome(through_messages)


def code(services: Services, raw: bytes) -> tuple[Outcome, Outcome]:
    """ValidateCode."""

    def through_messages(facts: Facts) -> bytes:
        request = terminology_pb2.ValidateCodeRequest.FromString(raw)
        return services.validate_code(request, facts).SerializeToString()

    def from_bytes(facts: Facts) -> bytes:
        got = services.from_bytes()["ValidateCode"](raw, facts)
        if got is not None:
            return got
        assert (facts.items, facts.errors, facts.releases) == (1, 0, "")
        return through_messages(facts)

    return outcome(from_bytes), outcome(through_messages)
