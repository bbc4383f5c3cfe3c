"""What goes wrong, on the wire: status, ErrorInfo, limits; and what never gets out."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from fake_library import SECRET
from google.rpc import error_details_pb2, status_pb2
from server_harness import running

from engine import errors, rpc
from engine._pb.codeset.v1 import grouping_pb2, terminology_pb2
from engine.client import AsyncClient, Client
from engine.server import ServerConfig


def send(address: str, path: str, raw: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
    """Send bytes as they are; return the failure, or the response's bytes."""
    with grpc.insecure_channel(address) as channel:
        try:
            response: bytes = channel.unary_unary(path)(raw, metadata=metadata, timeout=30)
            return response
        except grpc.RpcError as failed:
            return failed


def error_info(failed: Any) -> tuple[grpc.StatusCode, str, str, dict[str, str]]:
    """Return status, reason, domain and metadata of a failure."""
    trailing = dict(failed.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.code == failed.code().value[0]
    assert status.message == failed.details()
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return failed.code(), info.reason, info.domain, dict(info.metadata)


TERMINOLOGY = "/codeset.v1.TerminologyService/"
GROUPING = "/codeset.v1.GroupingService/"
CATALOG = "/codeset.v1.CatalogService/"
Validate = terminology_pb2.ValidateCodeRequest
Claim = grouping_pb2.InpatientClaim
Group = grouping_pb2.GroupDrgRequest
Explain = grouping_pb2.ExplainDrgRequest
Expand = terminology_pb2.ExpandRequest


@pytest.mark.parametrize(
    ("path", "request_", "status", "reason", "field"),
    [
        (
            TERMINOLOGY + "ValidateCode",
            Validate(system="icd11", code="A"),
            "NOT_FOUND",
            "UNKNOWN_SYSTEM",
            "system",
        ),
        (TERMINOLOGY + "ValidateCode", Validate(code="A"), "NOT_FOUND", "UNKNOWN_SYSTEM", "system"),
        (
            TERMINOLOGY + "ValidateCode",
            Validate(system="icd10cm", release="1066"),
            "NOT_FOUND",
            "UNKNOWN_RELEASE",
            "release",
        ),
        (
            TERMINOLOGY + "ValidateCode",
            Validate(system="icd10cm", date=20261000),
            "INVALID_ARGUMENT",
            "INVALID_DATE",
            "date",
        ),
        (
            TERMINOLOGY + "ValidateCode",
            Validate(system="icd10cm", date=10661001),
            "OUT_OF_RANGE",
            "DATE_OUTSIDE_COVERAGE",
            "date",
        ),
        (
            TERMINOLOGY + "Lookup",
            terminology_pb2.LookupRequest(system="icd10cm", code="Z"),
            "NOT_FOUND",
            "UNKNOWN_CODE",
            "code",
        ),
        (
            TERMINOLOGY + "Lookup",
            terminology_pb2.LookupRequest(system="icd10cm", code="A000", kind=99),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "kind",
        ),
        (
            TERMINOLOGY + "Subsumes",
            terminology_pb2.SubsumesRequest(system="icd10cm", code_a="A00", code_b="Z"),
            "NOT_FOUND",
            "UNKNOWN_CODE",
            "code",
        ),
        (
            TERMINOLOGY + "Expand",
            Expand(system="icd10cm", code="A00"),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "relation",
        ),
        (
            TERMINOLOGY + "Expand",
            Expand(system="icd10cm", code="A00", relation="EXPAND_RELATION_CHILDREN", page_size=-1),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "page_size",
        ),
        (
            TERMINOLOGY + "Expand",
            Expand(system="icd10cm", code="A00", relation="EXPAND_RELATION_CHILDREN", page_token="2027"),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "page_token",
        ),
        (GROUPING + "GroupDrg", Group(), "INVALID_ARGUMENT", "INVALID_FIELD", "claim"),
        (GROUPING + "ExplainDrg", Explain(), "INVALID_ARGUMENT", "INVALID_FIELD", "claim"),
        (
            GROUPING + "ExplainDrg",
            Explain(claim=Claim(version="12.0")),
            "NOT_FOUND",
            "UNKNOWN_VERSION",
            "version",
        ),
        (
            GROUPING + "GroupDrg",
            Group(claim=Claim(version="9.9")),
            "NOT_FOUND",
            "UNKNOWN_VERSION",
            "version",
        ),
        (
            GROUPING + "GroupDrg",
            Group(claim=Claim(version="43.1", diagnoses=["A000"], poa="YY")),
            "INVALID_ARGUMENT",
            "POA_LENGTH_MISMATCH",
            "poa",
        ),
        (
            GROUPING + "GroupDrg",
            Group(claim=Claim(version="43.1"), options=grouping_pb2.DrgOptions(detail=7)),
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            "detail",
        ),
        (
            GROUPING + "GroupDrg",
            Group(claim=Claim(discharge_date=20400101)),
            "OUT_OF_RANGE",
            "DATE_OUTSIDE_COVERAGE",
            "discharge_date",
        ),
    ],
)
def test_status_reason_and_field(address: str, path: str, request_: Any, status: str, reason: str, field: str) -> None:
    failed = send(address, path, request_.SerializeToString())
    code, got, domain, metadata = error_info(failed)
    assert (code.name, got, domain, metadata["field"]) == (status, reason, "codeset.v1", field)
    assert failed.details()


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0a\x01\xff" * 5000])
@pytest.mark.parametrize("method", [TERMINOLOGY + "ValidateCode", GROUPING + "BatchGroupDrg", CATALOG + "GetRelease"])
def test_bytes_that_are_no_message(address: str, method: str, raw: bytes) -> None:
    code, reason, *_ = error_info(send(address, method, raw))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


def test_unknown_fields_are_passed_over(address: str) -> None:
    request = Validate(system="icd10cm", code="A000").SerializeToString() + b"\xba\x3e\x03abc"
    assert isinstance(send(address, TERMINOLOGY + "ValidateCode", request), bytes)


def test_every_error_has_a_status() -> None:
    known = set(rpc._STATUS)
    assert known == {error.code for error in errors.all_errors()}


def test_an_unexpected_error_says_nothing_of_the_claim(
    address: str, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="engine.server"):
        request = Group(claim=Claim(version="43.1", claim_id="BOOM")).SerializeToString()
        failed = send(address, GROUPING + "GroupDrg", request, ((rpc.REQUEST_ID, "call-7"),))
        assert error_info(failed)[:2] == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
        assert SECRET not in str(failed)
        assert "call-7" in failed.details()
        assert dict(failed.trailing_metadata())[rpc.REQUEST_ID] == "call-7"
        with pytest.raises(errors.InternalError):
            client.group_drg_many([{"version": "43.1", "claim_id": "BOOM"}])
    (failure, *_) = [record for record in caplog.records if record.getMessage() == "failure"]
    fields: Any = vars(failure)["fields"]
    assert fields["error"] == "RuntimeError"
    assert fields["request_id"] == "call-7"
    assert any("_cue" in place for place in fields["where"])
    assert all(record.exc_info is None for record in caplog.records)
    assert SECRET not in "".join(json.dumps(vars(record), default=str) for record in caplog.records)


def test_a_damaged_pack_is_named_in_the_log_only(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="engine.server"),
        pytest.raises(errors.PackCorruptError) as raised,
    ):
        client.validate("icd10cm", "RUIN")
    assert "/secret/place" not in str(raised.value)
    assert "/secret/place" in "".join(json.dumps(vars(record), default=str) for record in caplog.records)


def test_a_long_text_in_an_error_still_arrives(client: Client) -> None:
    for text in ("x" * 200_000, "ä" * 200_000, "\n" * 20_000):
        with pytest.raises(errors.UnknownSystemError) as raised:
            client.validate(text, "A000")
        assert str(raised.value).endswith("…")


@pytest.mark.parametrize("request_id", ["a" * 65, "pat 4711", "a/b", ""])
def test_a_request_id_unfit_for_a_log_is_replaced(
    address: str, request_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="engine.server"):
        send(address, CATALOG + "ListReleases", b"", ((rpc.REQUEST_ID, request_id),))
    fields: Any = vars(caplog.records[-1])["fields"]
    assert len(fields["request_id"]) == 16


class TestLimits:
    """Each limit says itself, has a reason, and leaves the server well."""

    def test_items(self) -> None:
        with running(max_items=100) as address:
            request = grouping_pb2.BatchGroupDrgRequest(claims=[Claim(version="43.1")] * 101)
            failed = send(address, GROUPING + "BatchGroupDrg", request.SerializeToString())
            assert error_info(failed)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BATCH_TOO_LARGE")
            assert "100" in failed.details()
            codes = terminology_pb2.BatchValidateCodesRequest(
                system="icd10cm", items=[terminology_pb2.CodeToValidate(code="A000")] * 101
            )
            failed = send(address, TERMINOLOGY + "BatchValidateCodes", codes.SerializeToString())
            assert error_info(failed)[1] == "BATCH_TOO_LARGE"

    def test_the_default_is_ten_thousand_items(self, address: str) -> None:
        request = grouping_pb2.BatchGroupDrgRequest(claims=[Claim()] * 10_001)
        failed = send(address, GROUPING + "BatchGroupDrg", request.SerializeToString())
        assert error_info(failed)[1] == "BATCH_TOO_LARGE"
        assert "10,000" in failed.details()

    def test_clients_cut_smaller_when_the_server_takes_less(self) -> None:
        claims = [{"claim_id": str(i), "version": "43.1"} for i in range(250)]
        claims[3]["sex"] = "?"
        codes = [f"A00{i}" for i in range(250)]
        with running(max_items=30) as address:
            with Client(address) as client:
                results = client.group_drg_many(claims, options={"detail": "DRG"})
                found = client.validate_many("icd10cm", codes, date=20261001)
            assert [r.claim_id for r in results] == [str(i) for i in range(250)]
            assert [i for i, r in enumerate(results) if r.HasField("error")] == [3]
            assert [f.code for f in found] == codes
            assert all(f.date == 20261001 for f in found)

            async def again() -> list[Any]:
                async with AsyncClient(address) as client:
                    return await client.group_drg_many(claims, options={"detail": "DRG"})

            assert asyncio.run(again()) == results

    def test_message_bytes(self) -> None:
        with running(max_message_bytes=4096) as address:
            for size in (4097, 100_000):
                with Client(address) as client, pytest.raises(errors.MessageTooLargeError) as raised:
                    client.group_drg({"claim_id": "x" * size, "version": "43.1"})
                assert "4,096" in str(raised.value) or "8192" in str(raised.value)
            with Client(address) as client:
                claims = [{"claim_id": "x" * size, "version": "43.1"} for size in (10, 5000, 90_000, 20)]
                results = client.group_drg_many(claims)
            assert [r.error.code for r in results] == ["", "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE", ""]
            assert [len(r.claim_id) for r in results] == [10, 5000, 90_000, 20]

    def test_concurrent_requests(self) -> None:
        with running(max_concurrent=2, threads=2) as address, Client(address) as client:
            slow = [{"claim_id": "SLOW", "version": "43.1"}] + [{"version": "43.1"}] * 2000
            with ThreadPoolExecutor(2) as pool:
                held = [pool.submit(client.group_drg_many, slow) for _ in range(2)]
                refused = None
                while refused is None and not all(future.done() for future in held):
                    try:
                        client.validate("icd10cm", "A000")
                    except errors.TooManyRequestsError as error:
                        refused = error
                assert refused is not None
                assert "2 requests" in str(refused)
                assert all(len(future.result()) == 2001 for future in held)
            assert client.validate("icd10cm", "A000").valid

    def test_a_long_batch_leaves_the_event_loop(self) -> None:
        with running(threads=1) as address, Client(address) as client:
            slow = [{"claim_id": "SLOW", "version": "43.1"}] + [{"version": "43.1"}] * 2000
            with ThreadPoolExecutor(1) as pool:
                held = pool.submit(client.group_drg_many, slow)
                answered = 0
                while not held.done():
                    client.validate("icd10cm", "A000")
                    answered += 1
                assert len(held.result()) == 2001
            assert answered > 20

    def test_a_deadline_that_passes(self, client: Client) -> None:
        with pytest.raises(errors.DeadlineExceededError, match="timeout"):
            client.group_drg_many([{"claim_id": "SLOW", "version": "43.1"}] * 3, timeout=0.2)
        assert client.validate("icd10cm", "A000").valid


def test_the_message_of_a_page_is_followed_to_the_end(address: str) -> None:
    got: list[str] = []
    request = Expand(system="icd10cm", code="1", relation="EXPAND_RELATION_DESCENDANTS", page_size=2)
    for _ in range(3):
        raw = send(address, TERMINOLOGY + "Expand", request.SerializeToString())
        response = terminology_pb2.ExpandResponse.FromString(raw)
        assert response.total_size == 5
        got += [concept.code for concept in response.concepts]
        request.page_token = response.next_page_token
    assert got == ["A00-A09", "A00", "A000", "A001", "A009"]
    assert not request.page_token


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "http"}, "port"),
        ({"max_items": 0}, "max_items"),
        ({"max_message_bytes": 1}, "max_message_bytes"),
        ({"threads": 0}, "threads"),
        ({"watch_interval": -1}, "watch_interval"),
        ({"no_such": 1}, "no_such"),
        ({"tls_key": "a.pem"}, "tls_certificate"),
        ({"tls_client_ca": "a.pem"}, "tls_certificate"),
        ({"grace": -1.0}, "grace"),
    ],
)
def test_a_configuration_is_checked(options: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidFieldError, match=field) as raised:
        ServerConfig(**options)
    assert raised.value.field == field


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_only_loopback_unless_told(host: str) -> None:
    with pytest.raises(errors.AddressUnavailableError, match="allow_remote_plaintext"):
        ServerConfig(host=host)
    assert ServerConfig(host=host, allow_remote_plaintext=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_allowed(host: str) -> None:
    assert ServerConfig(host=host).host == host


def test_a_port_that_is_taken(address: str) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(errors.AddressUnavailableError, match=str(port)), running(port=port):
        pass
