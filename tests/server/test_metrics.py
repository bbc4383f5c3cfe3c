"""Figures: what is counted, by one process and by several, and that nothing of a claim gets into them."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_library import SECRET
from made_up_store import CODES, SYSTEM, write_generation
from prometheus_client.parser import text_string_to_metric_families
from server_harness import running
from test_workers import DAY, OWN_CONNECTION, eventually, serving

import engine
from engine import errors
from engine.client import Client
from engine.publish import publish

CLAIM = {"claim_id": SECRET, "version": "43.1", "diagnoses": ["E1165", "Z794"], "procedures": ["0DB68ZX"]}


class Figures:
    """What is to be had at a metrics address."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def text(self) -> str:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples that have the labels; None if there is none."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


@contextmanager
def counted(caplog: pytest.LogCaptureFixture, library: Any = None, **options: Any) -> Iterator[tuple[str, Figures]]:
    with caplog.at_level(logging.INFO, logger="engine.server"), running(library, metrics_port=0, **options) as address:
        (at,) = [vars(r)["fields"]["address"] for r in caplog.records if r.getMessage() == "metrics"]
        yield address, Figures(at)


def test_calls_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with counted(caplog) as (address, figures), Client(address) as client:
        client.group_drg_many([CLAIM, {**CLAIM, "poa": "Y"}, CLAIM])
        for _ in range(3):
            client.validate("icd10cm", "A000")
        with pytest.raises(errors.UnknownCodeError):
            client.lookup("icd10cm", "NOSUCHCODE")
        batch = {"service": "codeset.v1.GroupingService", "method": "BatchGroupDrg"}
        assert figures("codeset_requests_total", status="OK", **batch) == 1
        assert figures("codeset_items_total", **batch) == 3
        assert figures("codeset_item_errors_total", **batch) == 1
        assert figures("codeset_request_items_sum", **batch) == 3
        assert figures("codeset_received_bytes_total", **batch) > 100  # type: ignore[operator]
        assert figures("codeset_sent_bytes_total", **batch) > 100  # type: ignore[operator]
        assert figures("codeset_request_seconds_count", method="ValidateCode", status="OK") == 3
        assert figures("codeset_requests_total", method="Lookup", status="NOT_FOUND", reason="UNKNOWN_CODE") == 1
        assert figures("codeset_items_total", method="Lookup") == 0
        assert figures("codeset_requests_in_flight") == 0
        assert figures("codeset_requests_queued") == 0
        assert figures("codeset_releases", system="icd10cm") == 1
        assert figures("codeset_releases_refused") == 1
        assert figures("codeset_workers") == 1
        assert figures("codeset_worker_resident_bytes") > 1_000_000  # type: ignore[operator]
        assert figures("codeset_worker_open_files") > 3  # type: ignore[operator]


def test_nothing_of_a_claim_is_in_figures_or_log(caplog: pytest.LogCaptureFixture) -> None:
    # No word of digits alone: those of a time or of a request id may be the same.
    said = [
        SECRET,
        "E1165",
        "E11.65",
        "Z794",
        "0DB68ZX",
        "NOTACODE",
        "NOSUCHCODE",
        "nosuchsystem",
        "nosuchrelease",
        "patient",
    ]
    with counted(caplog) as (address, figures):
        with Client(address, metadata=[("x-request-id", "patient 1931")]) as client:
            client.group_drg(CLAIM)
            client.group_drg_many([CLAIM, {**CLAIM, "poa": "Y"}, {**CLAIM, "version": "nosuchrelease"}])
            client.explain_drg(CLAIM)
            client.validate_many("icd10cm", ["E11.65", "NOTACODE"])
            for call in (
                lambda: client.lookup("icd10cm", "NOSUCHCODE"),
                lambda: client.validate("nosuchsystem", "A"),
                lambda: client.validate("icd10cm", "E1165", release="nosuchrelease"),
                lambda: client.group_drg({**CLAIM, "claim_id": "BOOM"}),
            ):
                with pytest.raises(errors.CodesetError):
                    call()
        text = figures.text + json.dumps([vars(record) for record in caplog.records], default=str)
    for word in said:
        assert word not in text


def test_reloads_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = tmp_path / "store"
    write_generation(store, 0)
    with counted(caplog, engine.open(store), watch_interval=0.02) as (address, figures), Client(address) as client:
        assert figures("codeset_releases", system=SYSTEM) == 1
        publish(write_generation(tmp_path / "staging", 1, "2021-04"), store)
        eventually(lambda: len(client.releases()) == 2)
        eventually(lambda: figures("codeset_reloads_total", outcome="swapped") == 1)
        assert figures("codeset_releases", system=SYSTEM) == 2
        (store / SYSTEM / "2022").mkdir()
        (store / SYSTEM / "2022" / "manifest.json").write_text("{}")
        eventually(lambda: figures("codeset_releases_refused") == 1)
        assert figures("codeset_reloads_total", outcome="refused") == 1
        assert figures("codeset_reload_seconds") > 0  # type: ignore[operator]


def test_off_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="engine.server"), running() as address, Client(address) as client:
        client.releases()
    assert "metrics" not in {record.getMessage() for record in caplog.records}


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(errors.AddressUnavailableError, match="metrics"),
            running(metrics_port=taken.getsockname()[1]),
        ):
            pass


def test_several_workers_add_up(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_generation(store, 0)
    with serving(store, "--metrics-port", "0") as service:
        (line,) = service.events("metrics")
        figures = Figures(line["address"])
        for _ in range(20):
            with Client(service.address, channel_options=OWN_CONNECTION) as client:
                client.validate_many(SYSTEM, CODES, date=DAY)
        eventually(lambda: {call["worker"] for call in service.events("call")} == {0, 1})
        eventually(lambda: figures("codeset_requests_total", method="BatchValidateCodes", status="OK") == 20)
        assert figures("codeset_items_total", method="BatchValidateCodes") == 20 * len(CODES)
        assert figures("codeset_releases", system=SYSTEM) == 1
        assert figures("codeset_workers") == 2
        for number in ("0", "1"):
            assert figures("codeset_worker_resident_bytes", worker=number) > 1_000_000  # type: ignore[operator]
        # What a worker counted is not lost with it.
        os.kill(service.pids[0], signal.SIGKILL)
        eventually(lambda: figures("codeset_worker_restarts_total") == 1)
        eventually(lambda: figures("codeset_workers") == 2)
        assert figures("codeset_requests_total", method="BatchValidateCodes", status="OK") == 20
        assert figures("codeset_requests_in_flight") in (0, None)
        assert service.end() == 0
