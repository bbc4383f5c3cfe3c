"""TLS: whom a client trusts, whom a server trusts, and certificates that change while it runs."""

from __future__ import annotations

import datetime
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import trustme
from server_harness import running

from engine import errors
from engine.client import AsyncClient, Client
from engine.server import ServerConfig

YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


class Files:
    """An authority and a server's certificate by it, in files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.authority = trustme.CA()
        self.certificate = directory / "certificate.pem"
        self.key = directory / "key.pem"
        self.roots = directory / "roots.pem"
        self.authority.cert_pem.write_to_path(str(self.roots))
        self.issue()

    def issue(self, *names: str, **options: Any) -> None:
        issued = self.authority.issue_cert(*(names or ("localhost", "127.0.0.1")), **options)
        for path, blobs in (
            (self.key, [issued.private_key_pem]),
            (self.certificate, issued.cert_chain_pems),
        ):
            temporary = path.with_suffix(".new")
            temporary.write_bytes(b"".join(blob.bytes() for blob in blobs))
            temporary.replace(path)

    @property
    def settings(self) -> dict[str, Path]:
        return {"tls_certificate": self.certificate, "tls_key": self.key}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "server")


def ask(address: str, **client: Any) -> bool:
    with Client(address, **{"attempts": 1, "timeout": 5.0, **client}) as connected:
        return connected.validate("icd10cm", "A000").valid


def test_a_client_that_trusts_the_authority(files: Files, call: Any) -> None:
    with running(**files.settings) as address:
        assert call("validate", "icd10cm", "A000", target=address, client={"root_certificates": files.roots}).valid
        assert ask(address, root_certificates=files.roots.read_bytes())
        assert ask(address.replace("127.0.0.1", "localhost"), root_certificates=str(files.roots))


def test_a_client_that_does_not(files: Files, tmp_path: Path, call: Any) -> None:
    other = Files(tmp_path / "other")
    with running(**files.settings) as address:
        for client in ({"root_certificates": other.roots}, {"tls": True}, {}):
            with pytest.raises(errors.ServiceUnavailableError):
                call("validate", "icd10cm", "A000", target=address, client={"attempts": 1, "timeout": 5.0, **client})
        assert ask(address, root_certificates=files.roots)


def test_an_expired_certificate(files: Files) -> None:
    files.issue(not_before=YESTERDAY - datetime.timedelta(days=30), not_after=YESTERDAY)
    with running(**files.settings) as address:
        with pytest.raises(errors.ServiceUnavailableError, match=r"(?i)certificate|handshake|ssl"):
            ask(address, root_certificates=files.roots)
        # It is replaced without a restart.
        files.issue()
        assert ask(address, root_certificates=files.roots)


def test_a_certificate_of_another_name(files: Files) -> None:
    files.issue("elsewhere.example")
    with running(**files.settings) as address, pytest.raises(errors.ServiceUnavailableError):
        ask(address, root_certificates=files.roots)


def test_mutual_tls(files: Files, tmp_path: Path) -> None:
    clients, strangers = Files(tmp_path / "clients"), Files(tmp_path / "strangers")
    with running(**files.settings, tls_client_ca=clients.roots) as address:
        trusted: dict[str, Any] = {"root_certificates": files.roots}
        assert ask(address, **trusted, client_certificate=clients.certificate, client_key=clients.key)
        with pytest.raises(errors.ServiceUnavailableError):
            ask(address, **trusted)
        with pytest.raises(errors.ServiceUnavailableError):
            ask(address, **trusted, client_certificate=strangers.certificate, client_key=strangers.key)
        clients.issue("someone", not_before=YESTERDAY - datetime.timedelta(days=30), not_after=YESTERDAY)
        with pytest.raises(errors.ServiceUnavailableError):
            ask(address, **trusted, client_certificate=clients.certificate, client_key=clients.key)


def test_files_that_change_are_read_again(files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="engine.server"),
        running(**files.settings) as address,
        Client(address, root_certificates=files.roots) as before,
    ):
        assert before.validate("icd10cm", "A000").valid
        # A key that is not the certificate's: nothing changes.
        key = files.key.read_bytes()
        files.key.write_bytes(Files(tmp_path / "other").key.read_bytes())
        assert ask(address, root_certificates=files.roots)
        files.key.unlink()
        assert ask(address, root_certificates=files.roots)
        files.key.write_bytes(key)
        assert ask(address, root_certificates=files.roots)
        # Another authority altogether.
        new = Files(tmp_path / "new")
        for old, now in ((files.key, new.key), (files.certificate, new.certificate)):
            os.replace(now, old)  # noqa: PTH105
        assert ask(address, root_certificates=new.roots)
        with pytest.raises(errors.ServiceUnavailableError):
            ask(address, root_certificates=files.roots)
        # Who is connected stays so.
        assert before.validate("icd10cm", "A000").valid
    events = [record.getMessage() for record in caplog.records]
    assert "certificate refused" in events
    assert "certificate" in events


def test_files_that_cannot_be_used_end_the_start(files: Files, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for settings, field in (
        ({**files.settings, "tls_certificate": junk}, "tls_certificate"),
        ({**files.settings, "tls_key": tmp_path / "nothing"}, "tls_key"),
        ({**files.settings, "tls_client_ca": junk}, "tls_client_ca"),
    ):
        with pytest.raises(errors.InvalidFieldError) as raised, running(**settings):
            pass
        assert raised.value.field == field


def test_remote_addresses_want_tls(files: Files) -> None:
    with pytest.raises(errors.AddressUnavailableError, match="TLS"):
        ServerConfig(host="0.0.0.0")
    assert ServerConfig(host="0.0.0.0", **files.settings).host == "0.0.0.0"
    with running(host="0.0.0.0", **files.settings) as address:
        assert ask(address.replace("0.0.0.0", "127.0.0.1"), root_certificates=files.roots)
    with pytest.raises(errors.AddressUnavailableError, match="metrics_host"):
        ServerConfig(metrics_port=0, metrics_host="0.0.0.0", **files.settings)


def test_arguments_that_do_not_go_together(files: Files) -> None:
    import grpc

    for arguments in (
        {"credentials": grpc.ssl_channel_credentials(), "tls": True},
        {"root_certificates": files.roots, "client_key": files.key},
    ):
        for kind in (Client, AsyncClient):
            with pytest.raises(errors.InvalidFieldError):
                kind(**arguments)
    with pytest.raises(FileNotFoundError):
        Client(root_certificates="nothing.pem")
