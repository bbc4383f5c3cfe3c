"""A server in a process of its own: how it says where it listens, what it logs, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fake_library import SECRET
from server_harness import HERE, ROOT, process

from engine import errors
from engine.client import Client

CLAIM = {"claim_id": SECRET, "version": "43.1", "diagnoses": ["E1165", "Z794"], "procedures": ["0DB68ZX"]}


def finish(server: subprocess.Popen[str]) -> tuple[int, str, list[dict[str, Any]]]:
    """Wait for the end; return status, rest of standard output, and the log."""
    out, err = server.communicate(timeout=60)
    return server.returncode, out, [json.loads(line) for line in err.splitlines()]


def test_port_file_log_and_an_orderly_end(tmp_path: Path) -> None:
    file = tmp_path / "port"
    with process(port_file=str(file)) as (server, address):
        assert address == f"127.0.0.1:{int(file.read_text())}"
        assert list(tmp_path.iterdir()) == [file]
        with Client(address, metadata=[("x-request-id", "batch-1")]) as client:
            assert client.group_drg_many([CLAIM, {**CLAIM, "poa": "Y"}])[0].claim_id == SECRET
        with Client(address) as client:
            client.validate("icd10cm", "E11.65")
            client.validate_many("icd10cm", ["E1165", "NOTACODE"])
            with pytest.raises(errors.UnknownCodeError):
                client.lookup("icd10cm", "NOSUCHCODE")
            with pytest.raises(errors.InternalError):
                client.validate("icd10cm", "BOOM")
        server.send_signal(signal.SIGTERM)
        status, out, log = finish(server)
    assert (status, out) == (0, "")
    assert not file.exists()
    assert [line["event"] for line in log if line["event"] != "call"] == [
        "listening",
        "failure",
        "draining",
        "stopped",
    ]
    calls = [line for line in log if line["event"] == "call"]
    assert [(c["method"], c["status"], c["items"]) for c in calls] == [
        ("BatchGroupDrg", "OK", 2),
        ("ValidateCode", "OK", 1),
        ("BatchValidateCodes", "OK", 2),
        ("Lookup", "NOT_FOUND", 1),
        ("ValidateCode", "INTERNAL", 1),
    ]
    assert calls[0]["request_id"] == "batch-1"
    assert calls[0]["errors"] == 1
    assert calls[0]["release"] == "msdrg/43.1"
    assert calls[3]["reason"] == "UNKNOWN_CODE"
    assert all(call["duration_ms"] >= 0 for call in calls)
    text = json.dumps(log)
    for said in (SECRET, "E1165", "E11.65", "Z794", "0DB68ZX", "NOTACODE", "NOSUCHCODE", "BOOM"):
        assert said not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_answered(number: signal.Signals) -> None:
    slow = [{**CLAIM, "claim_id": "SLOW"}] + [CLAIM] * 2000
    with (
        process() as (server, address),
        Client(address, attempts=1) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        client.wait_until_ready()
        held = [pool.submit(client.group_drg_many, slow) for _ in range(4)]
        time.sleep(0.4)
        server.send_signal(number)
        assert all(len(future.result(30)) == 2001 for future in held)
        status, _, log = finish(server)
        assert status == 0
        assert sum(line["event"] == "call" and line["status"] == "OK" for line in log) == 4
        with pytest.raises(errors.ServiceUnavailableError, match="codeset-engine serve"):
            client.validate("icd10cm", "A000")


def test_what_does_not_finish_in_time_is_cut_off() -> None:
    slow = [{**CLAIM, "claim_id": "SLOW"}] * 30 + [CLAIM] * 2000
    with process(grace=0.3) as (server, address), Client(address, attempts=1) as client:
        client.wait_until_ready()
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(client.group_drg_many, slow)
            time.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            with pytest.raises(errors.CodesetError):
                held.result(30)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_than_loopback_is_refused(host: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(HERE / "serve_fake.py"), json.dumps({"port": 0, "host": host})],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ended.returncode != 0
    assert "allow_remote_plaintext" in ended.stderr
    assert ended.stdout == ""


def test_other_than_loopback_when_told() -> None:
    with process(host="::", allow_remote_plaintext=True) as (_, address):
        port = address.rpartition(":")[2]
        assert address == f"[::]:{port}"
        with Client(f"127.0.0.1:{port}") as client:
            assert client.validate("icd10cm", "A000").valid
