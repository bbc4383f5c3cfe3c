"""A request answered on both ways: from bytes to bytes, and through the generated classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from engine import errors
from engine._pb.codeset.v1 import grouping_pb2
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

    return outcome(lambda facts: services.batch_group_drg_bytes(raw, facts)), outcome(through_messages)
