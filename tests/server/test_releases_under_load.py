"""Releases published, replaced and spoilt under a server that is answering: no call fails, no answer is of half a
release.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from made_up_store import CODES, SYSTEM, generation_of, spoil, write_generation
from server_harness import running

import engine
from engine import errors
from engine import library as library_module
from engine._pb.codeset.v1 import catalog_pb2
from engine.client import AsyncClient, Client
from engine.publish import publish
from engine.server.reload import RELEASES, fingerprint

SWAPS = 100
DAY = 20201001
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_generation(tmp_path / "store", 0)
    return tmp_path / "store"


def staged(directory: Path, generation: int, release: str = "2021") -> Path:
    """Return a pack outside the store."""
    return write_generation(directory / f"staging-{generation}", generation, release)


def health_of(address: str, service: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status
        return status


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@contextmanager
def load(address: str, threads: int = 1) -> Iterator[list[list[int]]]:
    """Ask in every way until the end of the block; yield, for each thread, the generations that answered.

    Every answer is checked to be whole: all of it of one generation, and none older than one that answered before.
    """
    ended = threading.Event()
    seen: list[list[int]] = [[0] for _ in range(threads + 1)]
    failures: list[BaseException] = []

    def note(at: list[int], titles: list[str]) -> None:
        (generation,) = {generation_of(title) for title in titles}
        assert generation >= at[-1]
        at.append(generation)

    def ask(at: list[int]) -> None:
        try:
            # Nothing is tried twice: a call that fails has failed.
            with Client(address, attempts=1) as client:
                while not ended.is_set():
                    found = client.validate_many(SYSTEM, CODES * 50, date=DAY)
                    assert all(validation.valid for validation in found)
                    note(at, [validation.title for validation in found])
                    concept = client.lookup(SYSTEM, "U0011", date=DAY)
                    note(at, [concept.concept.title, *(ancestor.title for ancestor in concept.ancestors)])
        except BaseException as error:
            failures.append(error)

    async def ask_asyncio(at: list[int]) -> None:
        async with AsyncClient(address, attempts=1) as client:
            while not ended.is_set():
                found = await asyncio.gather(*(client.validate(SYSTEM, code, date=DAY) for code in CODES))
                # Each is a call of its own: a swap may fall between them.
                generations = sorted(generation_of(validation.title) for validation in found)
                assert generations[0] >= at[-1]
                at.append(generations[-1])

    def ask_many(at: list[int]) -> None:
        try:
            asyncio.run(ask_asyncio(at))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=ask, args=(seen[i],)) for i in range(threads)]
    workers.append(threading.Thread(target=ask_many, args=(seen[threads],)))
    for worker in workers:
        worker.start()
    try:
        yield seen
    finally:
        ended.set()
        for worker in workers:
            worker.join(30)
    if failures:
        raise failures[0]


def test_a_hundred_swaps_under_load(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packs = [staged(tmp_path, generation) for generation in range(1, SWAPS + 1)]
    with (
        caplog.at_level(logging.INFO, logger="engine.server"),
        running(engine.open(store, verify="now"), watch_interval=0.01) as address,
        Client(address) as watcher,
        load(address) as seen,
    ):
        for generation, pack in enumerate(packs, 1):
            publish(pack, store, replace=True)
            eventually(lambda g=generation: generation_of(watcher.validate(SYSTEM, "U01", date=DAY).title) == g)
    assert all(len(set(generations)) > SWAPS / 4 for generations in seen)
    outcomes = [vars(record)["fields"]["outcome"] for record in caplog.records if record.getMessage() == "reload"]
    # A look between the two renames of a replacement sees a change and finds nothing new: the next one does.
    assert [outcome for outcome in outcomes if outcome != "unchanged"] == ["swapped"] * SWAPS
    assert {vars(r)["fields"]["status"] for r in caplog.records if r.getMessage() == "call"} == {"OK"}


def test_a_new_release_comes_into_use_beside_the_others(store: Path, tmp_path: Path) -> None:
    with running(engine.open(store), watch_interval=0.02) as address, Client(address) as client, load(address):
        with pytest.raises(errors.DateOutsideCoverageError):
            client.validate(SYSTEM, "U01", date=20210401)
        publish(staged(tmp_path, 1, "2021-04"), store)
        eventually(lambda: len(client.releases()) == 2)
        assert generation_of(client.validate(SYSTEM, "U01", date=20210401).title) == 1
        assert generation_of(client.validate(SYSTEM, "U01", date=DAY).title) == 0
        assert health_of(address, RELEASES) == SERVING


def test_a_spoilt_pack_is_refused_and_the_old_one_serves(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody puts a pack there by hand, past all checks."""
    with (
        caplog.at_level(logging.INFO, logger="engine.server"),
        running(engine.open(store, verify="now"), watch_interval=0.02) as address,
        Client(address) as client,
        load(address),
        grpc.insecure_channel(address) as channel,
    ):
        bad = staged(tmp_path, 1)
        spoil(bad)
        (store / SYSTEM / "2021").rename(tmp_path / "aside")
        bad.rename(store / SYSTEM / "2021")
        eventually(lambda: health_of(address, RELEASES) == NOT_SERVING)
        for service in ("", "codeset.v1.TerminologyService", "codeset.v1.CatalogService"):
            assert health_of(address, service) == SERVING
        assert generation_of(client.validate(SYSTEM, "U01", date=DAY).title) == 0
        listed = channel.unary_unary(
            "/codeset.v1.CatalogService/ListReleases",
            response_deserializer=catalog_pb2.ListReleasesResponse.FromString,
        )(b"")
        assert [(unusable.id, unusable.error.code) for unusable in listed.unusable] == [
            (f"{SYSTEM}/2021", "PACK_CORRUPT")
        ]
        assert str(store) not in str(listed)
        assert [release.release for release in listed.releases] == ["2021"]

        health: Any = health_pb2_grpc.HealthStub(channel)
        _, call = health.Check.with_call(health_pb2.HealthCheckRequest(service=""), timeout=10)
        assert dict(call.trailing_metadata())["x-refused-releases"] == f"{SYSTEM}/2021=PACK_CORRUPT"

        # A good one makes up for it.
        publish(staged(tmp_path, 2), store, replace=True)
        eventually(lambda: generation_of(client.validate(SYSTEM, "U01", date=DAY).title) == 2)
        assert health_of(address, RELEASES) == SERVING
    refused = [vars(r)["fields"] for r in caplog.records if r.getMessage() == "refused"]
    assert {(fields["release"], fields["reason"]) for fields in refused} == {(f"{SYSTEM}/2021", "PACK_CORRUPT")}
    assert "checksum" in refused[0]["error"]


def test_a_store_that_goes_away_changes_nothing(store: Path) -> None:
    with running(engine.open(store, verify="now"), watch_interval=0.02) as address, load(address):
        away = store.with_name("away")
        store.rename(away)
        eventually(lambda: health_of(address, RELEASES) == NOT_SERVING)
        with Client(address) as client:
            assert client.validate(SYSTEM, "U01", date=DAY).valid
        away.rename(store)
        eventually(lambda: health_of(address, RELEASES) == SERVING)


def test_a_release_that_vanishes_goes_on_answering(store: Path) -> None:
    write_generation(store, 0, "2021-04")
    library = engine.open(store, verify="now")
    (store / SYSTEM / "2021-04").rename(store.parent / "elsewhere")
    kept = library.reloaded()
    assert [info.release for info in kept.releases()] == ["2021", "2021-04"]
    assert kept.validate(SYSTEM, "U01", date=20210401).valid
    assert [info.release for info in library.reloaded(forget=True).releases()] == ["2021"]


def test_what_did_not_change_is_not_opened_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = engine.open(store, verify="now")
    write_generation(store, 3, "2021-04")
    opened = []
    real = library_module.open_pack
    monkeypatch.setattr(library_module, "open_pack", lambda path: opened.append(path.name) or real(path))
    new = library.reloaded()
    assert opened == ["2021-04"]
    assert new.code_system(SYSTEM, release="2021")._pack is library.code_system(SYSTEM, release="2021")._pack
    assert len(library.releases()) == 1


def test_only_the_releases_asked_for_are_taken_up(store: Path) -> None:
    library = engine.open(store, releases=[f"{SYSTEM}/2021"])
    write_generation(store, 3, "2021-04")
    assert [info.release for info in library.reloaded().releases()] == ["2021"]
    whole = engine.open(store, releases=iter([SYSTEM]))
    assert [info.release for info in whole.reloaded().releases()] == ["2021", "2021-04"]


def test_a_fingerprint_is_of_what_is_shown(store: Path) -> None:
    before = fingerprint(store)
    assert before == fingerprint(store)
    (store / SYSTEM / ".tmp-2022").mkdir()
    assert before == fingerprint(store)
    write_generation(store, 1, replace=True)
    assert before != fingerprint(store)
    assert fingerprint(store / "nowhere") != fingerprint(store / "nowhere")


def test_log_lines_are_json(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="engine.server"),
        running(engine.open(store), watch_interval=0.02) as address,
        Client(address) as client,
    ):
        publish(staged(tmp_path, 1, "2021-04"), store)
        eventually(lambda: len(client.releases()) == 2)
    (fields,) = [vars(record)["fields"] for record in caplog.records if record.getMessage() == "reload"]
    assert json.loads(json.dumps(fields)) == fields
    assert fields["added"] == [f"{SYSTEM}/2021-04"]
