"""The whole path in one run: a server, a client, claims, codes, and how fast it goes.

    make demo                      or        python examples/demo.py

Starts ``codeset-engine serve`` as a process of its own on a free loopback port, groups a few hundred inpatient claims
through ``engine.client``, shows some of them, compares all of them with the answers of the CMS software
(``tests/golden/``), validates a handful of codes, measures, and stops the server. Needs the default packs
(``codeset-engine build``).
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine import DeadlineExceededError, ServiceUnavailableError
from engine.client import (
    Client,
    CodeStatus,
    DrgResult,
    HacStatus,
    MedSurg,
    ReturnCode,
    Severity,
    raise_for_error,
    to_dict,
)

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
CLAIMS = 600
MEASURED = 20_000
START_SECONDS = 120.0
DAY = 20250401
CODES = ("A00.0", "e119", "A00", "C86.0", "H81.41", "E11.A", "Q99.XYZ", "A00 0 (?)")

HAC = {
    HacStatus.HAC_STATUS_NOT_APPLICABLE: "",
    HacStatus.HAC_STATUS_FINAL_DRG_NO_CHANGE: "no change",
    HacStatus.HAC_STATUS_FINAL_DRG_CHANGES: "changes DRG",
    HacStatus.HAC_STATUS_FINAL_DRG_UNGROUPABLE: "ungroupable",
}

# One claim of each kind, in this order.
KINDS: tuple[tuple[str, Callable[[DrgResult], bool]], ...] = (
    ("medical, MCC", lambda r: medical(r) and decided(r) == Severity.SEVERITY_MCC),
    ("medical, CC", lambda r: medical(r) and decided(r) == Severity.SEVERITY_CC),
    ("medical", lambda r: medical(r) and decided(r) == Severity.SEVERITY_NON_CC),
    ("surgical, MCC", lambda r: surgical(r) and decided(r) == Severity.SEVERITY_MCC and 20 < drg(r) < 981),
    ("surgical", lambda r: surgical(r) and decided(r) == Severity.SEVERITY_NON_CC and 20 < drg(r) < 981),
    ("pre-MDC", lambda r: surgical(r) and drg(r) <= 20),
    ("newborn", lambda r: r.final_grouping.mdc == 15 and drg(r) != 999),
    ("several injuries", lambda r: r.final_grouping.mdc == 24 and drg(r) < 981),
    ("unrelated procedure", lambda r: 981 <= drg(r) <= 989),
    ("HAC changes DRG", lambda r: r.hac_status == HacStatus.HAC_STATUS_FINAL_DRG_CHANGES),
    ("HAC, same DRG", lambda r: r.hac_status == HacStatus.HAC_STATUS_FINAL_DRG_NO_CHANGE),
    ("HAC, bad POA", lambda r: r.hac_status == HacStatus.HAC_STATUS_FINAL_DRG_UNGROUPABLE),
    ("principal unknown", lambda r: returned(r) == ReturnCode.RETURN_CODE_INVALID_PDX),
    ("external cause", lambda r: returned(r) == ReturnCode.RETURN_CODE_DX_CANNOT_BE_PDX),
)


def drg(result: DrgResult) -> int:
    return result.final_grouping.drg


def decided(result: DrgResult) -> int:
    return result.final_grouping.sdx_severity


def returned(result: DrgResult) -> int:
    return result.final_grouping.return_code


def medical(result: DrgResult) -> bool:
    return result.final_grouping.med_surg == MedSurg.MED_SURG_MEDICAL


def surgical(result: DrgResult) -> bool:
    return result.final_grouping.med_surg == MedSurg.MED_SURG_SURGICAL


def main() -> int:
    # A log has no width of its own: give the tables the room they need.
    console = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 160)
    claims, answers = read("inpatient_claims"), read("msdrg_answers")
    step = max(1, len(claims) // CLAIMS)
    claims, answers = claims[::step][:CLAIMS], answers[::step][:CLAIMS]

    begin = time.perf_counter()
    with serving() as target, Client(target) as client:
        releases = client.releases()
        console.print(
            f"Server on {target}, ready after {time.perf_counter() - begin:.1f} s with {len(releases)} releases: "
            + ", ".join(f"{system} {first} to {last}" for system, first, last in spans(releases))
        )

        results = client.group_drg_many(claims)
        show_claims(console, client, claims, results)
        agreed = sum(plain(to_dict(result)) == answer for result, answer in zip(results, answers, strict=True))
        console.print(
            f"{agreed} of {len(results)} claims agree with the CMS software on every output field.",
            style="bold green" if agreed == len(results) else "bold red",
        )

        show_codes(console, client)
        show_speed(console, client, claims)
    console.print("Server stopped.")
    return 0 if agreed == len(results) else 1


def read(name: str) -> list[dict[str, Any]]:
    with lzma.open(GOLDEN / f"{name}.ndjson.xz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run a server; yield its address once it answers, and stop it at the end."""
    with tempfile.TemporaryDirectory() as directory:
        port_file, log = Path(directory) / "port", Path(directory) / "log"
        with log.open("wb") as stderr:
            command = [sys.executable, "-m", "engine.cli", "serve", "--port", "0", "--port-file", str(port_file)]
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            yield wait_until_healthy(server, port_file, log)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                status = server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                status = server.wait()
        if status != 0:
            sys.exit(f"the server ended with status {status}:\n{log.read_text(encoding='utf-8')}")


def wait_until_healthy(server: subprocess.Popen[bytes], port_file: Path, log: Path) -> str:
    """Return the server's address when its health service says SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
        if port_file.exists():
            target = f"127.0.0.1:{int(port_file.read_text())}"
            with grpc.insecure_channel(target) as channel, contextlib.suppress(grpc.RpcError):
                health: Any = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest(service="codeset.v1.GroupingService")
                if health.Check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING:
                    return target
        time.sleep(0.05)
    sys.exit(f"the server was not ready after {START_SECONDS:.0f} s:\n{log.read_text(encoding='utf-8')}")


def spans(releases: list[Any]) -> Iterator[tuple[str, str, str]]:
    for system in dict.fromkeys(release.system for release in releases):
        own = [release.release for release in releases if release.system == system]
        yield system, own[0], own[-1]


def show_claims(console: Console, client: Client, claims: list[dict[str, Any]], results: list[DrgResult]) -> None:
    """Print one claim of each kind."""
    chosen: list[tuple[str, int]] = []
    for name, is_kind in KINDS:
        # Of several the shortest: it says most clearly why.
        taken = {i for _, i in chosen}
        found = [i for i, result in enumerate(results) if is_kind(result) and i not in taken]
        if found:
            chosen.append((name, min(found, key=lambda i: len(claims[i]["diagnoses"] + claims[i]["procedures"]))))
    principal = [(claims[i]["diagnoses"] or [""])[0] for _, i in chosen]
    titles = client.validate_many(
        "icd10cm",
        [{"code": code, "date": claims[i]["discharge_date"]} for code, (_, i) in zip(principal, chosen, strict=True)],
    )
    table = Table(
        title=f"{len(chosen)} of the claims", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    # A narrow terminal has no room for everything: what says least goes, and the texts break into lines.
    wide = console.width >= 150
    text_width = max(20, (console.width - (92 if wide else 60)) // 2)
    for column in ("Claim", *(("Kind", "Version") if wide else ())):
        table.add_column(column, no_wrap=True)
    table.add_column("Principal diagnosis", width=text_width, no_wrap=wide, overflow="ellipsis")
    table.add_column("DRG", justify="right", no_wrap=True)
    table.add_column("Title", width=text_width, no_wrap=wide, overflow="ellipsis")
    table.add_column("MDC", justify="right", no_wrap=True)
    for column in ("Severity", "HAC"):
        table.add_column(column, no_wrap=True)
    for (kind, i), diagnosis in zip(chosen, titles, strict=True):
        result = results[i]
        final, initial = result.final_grouping, result.initial_grouping
        number = f"{final.drg:03d}" if final.drg == initial.drg else f"{initial.drg:03d} → {final.drg:03d}"
        why = ReturnCode.Name(final.return_code).removeprefix("RETURN_CODE_")
        table.add_row(
            result.claim_id,
            *((kind, result.version) if wide else ()),
            f"{diagnosis.display or '(none)'} {diagnosis.title or 'no such code'}",
            Text(number, style="bold"),
            final.drg_title if final.return_code == ReturnCode.RETURN_CODE_OK else f"Ungroupable: {why}",
            str(final.mdc),
            Severity.Name(final.severity).removeprefix("SEVERITY_").replace("_", "-"),
            HAC[result.hac_status],
        )
    console.print()
    console.print(table)


def show_codes(console: Console, client: Client) -> None:
    """Validate a few codes on one day."""
    table = Table(
        title=f"Codes on {DAY // 10000}-{DAY // 100 % 100:02d}-{DAY % 100:02d}, in one batch",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("Code", "Status", "Release"):
        table.add_column(column, no_wrap=True)
    table.add_column("Title")
    table.add_column("Finding")
    for found in client.validate_many("icd10cm", CODES, date=DAY):
        raise_for_error(found)
        status = CodeStatus.Name(found.status).removeprefix("CODE_STATUS_")
        style = "green" if found.valid else "yellow" if found.billable or status == "HEADER" else "red"
        table.add_row(found.code, Text(status, style=style), found.release, found.title, found.message)
    console.print()
    console.print(table)


def show_speed(console: Console, client: Client, claims: list[dict[str, Any]]) -> None:
    """Group the claims again and again, and print claims a second from dictionaries to answers."""
    many = (claims * (MEASURED // len(claims) + 1))[:MEASURED]
    for detail, what in (("DRG", "DRG fields only"), ("FULL", "every output field")):
        begin = time.perf_counter()
        count = sum(1 for _ in client.iter_drg(many, options={"detail": detail}))
        seconds = time.perf_counter() - begin
        console.print(
            f"{count:,} claims through client and server in {seconds:.2f} s, {what}: "
            f"{count / seconds:,.0f} claims/s on {os.cpu_count()} cores"
        )


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """Bring an answer into the form of the reference answers: enumeration values without the prefix of their type."""
    answer: dict[str, Any] = {}
    for name, value in result.items():
        if name in ("version", "mdc_title", "drg_title", "weight"):
            continue
        prefix = f"{name.upper()}_"
        if name in ("sdx_severity",):
            prefix = "SEVERITY_"
        elif name in ("initial_severity", "final_severity"):
            prefix = "SEVERITY_USAGE_"
        if name == "hacs":
            value = sorted(f"{hac['name']}:{hac['status'].removeprefix('HAC_CRITERIA_')}" for hac in value)
        elif name == "hac_usage":
            value = sorted(usage.removeprefix(prefix) for usage in value)
        elif isinstance(value, list):
            value = [plain(item) for item in value]
        elif isinstance(value, dict):
            value = plain(value)
        elif isinstance(value, str) and name not in ("claim_id", "code"):
            value = value.removeprefix(prefix)
        answer[name] = value
    return answer


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ServiceUnavailableError, DeadlineExceededError) as error:
        sys.exit(f"{error.code}: {error}")
