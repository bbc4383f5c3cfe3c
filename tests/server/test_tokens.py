"""Bearer tokens: who may call what, and that the log says who but never with what."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_harness import running

from engine import errors
from engine.client import AsyncClient, Client
from engine.server import auth
from engine.server.auth import read_tokens

ALL, CODES, ONE = ("a" * 32, "b" * 32, "c" * 32)
TEXT = f"""
[[token]]
name = "everything"
token = "{ALL}"
allow = ["*"]

[[token]]
name = "codes"
sha256 = "{hashlib.sha256(CODES.encode()).hexdigest()}"
allow = ["TerminologyService/*", "reflection"]

[[token]]
name = "one"
token = "{ONE}"
allow = ["GroupingService/GroupDrg"]
"""
CLAIM = {"claim_id": "1", "version": "43.1"}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(TEXT)
    return path


def test_each_may_call_what_it_may(tokens: Path, call: Any) -> None:
    with running(tokens=tokens) as address:

        def ask(token: str | None, method: str, *arguments: Any) -> Any:
            return call(method, *arguments, target=address, client={"token": token})

        assert ask(ALL, "validate", "icd10cm", "A000").valid
        assert ask(ALL, "group_drg", CLAIM).claim_id == "1"
        assert ask(CODES, "validate", "icd10cm", "A000").valid
        assert len(ask(CODES, "validate_many", "icd10cm", ["A000", "A001"])) == 2
        assert ask(ONE, "group_drg", CLAIM).claim_id == "1"
        for token, method, *arguments in (
            (CODES, "group_drg", CLAIM),
            (CODES, "releases"),
            (ONE, "group_drg_many", [CLAIM]),
            (ONE, "validate", "icd10cm", "A000"),
        ):
            with pytest.raises(errors.PermissionDeniedError, match="may not call") as raised:
                ask(token, method, *arguments)
            assert isinstance(raised.value, PermissionError)
        for wrong in (None, "d" * 32, "a" * 31, ALL + "a"):
            with pytest.raises(errors.UnauthenticatedError, match="token"):
                ask(wrong, "validate", "icd10cm", "A000")


def test_a_stream_needs_a_token_too(tokens: Path) -> None:
    with running(tokens=tokens) as address:
        with Client(address, token=ALL) as client:
            assert [result.claim_id for result in client.stream_drg([CLAIM] * 3)] == ["1"] * 3
        for token, expected in ((ONE, errors.PermissionDeniedError), (None, errors.UnauthenticatedError)):
            with Client(address, token=token) as client, pytest.raises(expected):
                list(client.stream_drg([CLAIM]))


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", ALL)],
        [("authorization", f"Basic {ALL}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {ALL}"), ("authorization", f"Bearer {ALL}")],
        [("authorization-bin", b"Bearer " + ALL.encode())],
    ],
)
def test_other_headers_are_no_token(tokens: Path, metadata: Any) -> None:
    with running(tokens=tokens) as address, Client(address, metadata=metadata) as client:
        with pytest.raises(errors.UnauthenticatedError) as raised:
            client.validate("icd10cm", "A000")
        assert len(raised.value.request_id) == 16


def test_health_is_open_and_reflection_is_not(tokens: Path) -> None:
    with running(tokens=tokens) as address, grpc.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)

        def services(token: str) -> int:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            metadata = [("authorization", f"Bearer {token}")]
            (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10, metadata=metadata)
            return len(answer.list_services_response.service)

        assert services(CODES) >= 5
        assert services(ALL) >= 5
        with pytest.raises(grpc.RpcError) as refused:
            services(ONE)
        error: Any = refused.value
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_log_says_who_and_never_with_what(tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="engine.server"), running(tokens=tokens) as address:
        with Client(address, token=CODES, metadata=[("x-request-id", "id-1")]) as client:
            client.validate("icd10cm", "A000")
            with pytest.raises(errors.PermissionDeniedError):
                client.releases()
        with Client(address, token="e" * 32) as client, pytest.raises(errors.UnauthenticatedError):
            client.releases()
    calls: list[Any] = [vars(record)["fields"] for record in caplog.records if record.getMessage() == "call"]
    assert [(c["method"], c["status"], c.get("caller"), c["items"]) for c in calls] == [
        ("ValidateCode", "OK", "codes", 1),
        ("ListReleases", "PERMISSION_DENIED", None, 0),
        ("ListReleases", "UNAUTHENTICATED", None, 0),
    ]
    assert calls[1]["request_id"] == "id-1"
    text = json.dumps([vars(record) for record in caplog.records], default=str)
    for token in (ALL, CODES, ONE, "e" * 32):
        assert token not in text


def test_the_file_is_read_again(
    tokens: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(auth, "_LOOK_SECONDS", 0.0)
    with (
        caplog.at_level(logging.INFO, logger="engine.server"),
        running(tokens=tokens) as address,
        Client(address, token=ONE) as client,
    ):
        assert client.group_drg(CLAIM).claim_id == "1"
        tokens.write_text("nonsense [")
        assert client.group_drg(CLAIM).claim_id == "1"
        tokens.write_text(TEXT.replace(ONE, "f" * 32))
        with pytest.raises(errors.UnauthenticatedError):
            client.group_drg(CLAIM)
    assert {"tokens", "tokens refused"} <= {record.getMessage() for record in caplog.records}


def test_every_digest_is_compared_in_constant_time(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    guard = auth.Guard(tokens, None)  # type: ignore[arg-type]
    for token in (ALL, CODES, "wrong"):
        compared.clear()
        try:
            guard.caller("/codeset.v1.TerminologyService/ValidateCode", [("authorization", f"Bearer {token}")])
        except errors.UnauthenticatedError:
            assert token == "wrong"
        assert compared == [(32, 32)] * 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[token]]",
        'token = "a"',
        '[[token]]\nname = "x"\ntoken = "short"\nallow = ["*"]',
        f'[[token]]\nname = ""\ntoken = "{ALL}"\nallow = ["*"]',
        f'[[token]]\nname = "x"\ntoken = "{ALL}"\nallow = ["GroupingService/Grup"]',
        f'[[token]]\nname = "x"\ntoken = "{ALL}"\nallow = "*"',
        f'[[token]]\nname = "x"\ntoken = "{ALL}"\nalow = ["*"]',
        f'[[token]]\nname = "x"\nsha256 = "{ALL}"\nallow = ["*"]',
        f'[[token]]\nname = "x"\nsha256 = "{"0" * 64}"\ntoken = "{ALL}"\nallow = ["*"]',
        f'{TEXT}\n[[token]]\nname = "again"\ntoken = "{ONE}"\nallow = ["*"]',
        f'{TEXT}\n[[token]]\nname = "one"\ntoken = "{"z" * 20}"\nallow = ["*"]',
    ],
)
def test_a_wrong_file_is_refused_without_quoting_tokens(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(errors.InvalidFieldError) as raised:
        read_tokens(path)
    assert raised.value.field == "tokens"
    for secret in (ALL, ONE, "short"):
        assert secret not in str(raised.value)


def test_a_client_does_not_send_a_token_in_the_clear() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(errors.InvalidFieldError, match="TLS"):
            kind("drg.example:50051", token=ALL)
        with pytest.raises(errors.InvalidFieldError, match="printable"):
            kind(token="a\nb")
    for target in (
        "localhost:1",
        "127.0.0.1:1",
        "[::1]:1",
        "unix:/run/x",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
        "dns:///localhost:1",
    ):
        Client(target, token=ALL).close()
    Client("drg.example:50051", token=ALL, tls=True).close()


def test_every_call_has_a_request_id_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="engine.server"), running() as address:
        with Client(address) as client:
            for _ in range(3):
                client.validate("icd10cm", "A000")
            with pytest.raises(errors.UnknownCodeError) as raised:
                client.lookup("icd10cm", "Z")
        with Client(address, metadata=[("x-request-id", "mine")]) as client:
            client.validate("icd10cm", "A000")
    ids = [vars(record)["fields"]["request_id"] for record in caplog.records if record.getMessage() == "call"]
    assert len(set(ids)) == 5
    assert raised.value.request_id == ids[3]
    assert ids[4] == "mine"
    with Client("127.0.0.1:1", attempts=1, timeout=1) as client:
        with pytest.raises(errors.ServiceUnavailableError) as unavailable:
            client.releases()
        assert len(unavailable.value.request_id) == 16
