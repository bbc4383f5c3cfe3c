"""Small made-up sources in the official layouts. None of these codes, titles or dates is real."""

from __future__ import annotations

import csv
import hashlib
import io
import sqlite3
import struct
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import lmdb

from codesets.fetch import SourceFile, Wheel
from engine.tables import Source

TERMINATION = 20270331
SOURCE = Source("made-up", "0", "0" * 64, "made-up.file", "2021", ("everything",))


def code_master(rows: Iterable[tuple[str, int, int, tuple[str, ...]]], termination: int = TERMINATION) -> bytes:
    """A code master blob; rows are written in the order given."""
    rows = list(rows)
    strings = b""
    records = b""
    for code, first, last, flags in rows:
        at = len(strings)
        strings += b"".join(flag.encode() + b"\0" for flag in flags)
        records += struct.pack("<8siiIHxx", code.encode(), first, last, at, len(flags))
    header = struct.pack("<IIIIi12x", 0x4D434544, len(rows), 32, 32 + len(records), termination)
    return padded(header + records + strings)


def conversions(
    magic: int, rows: Iterable[tuple[str, str, int, int, int]], years: tuple[int, ...] = (2025, 2026)
) -> bytes:
    """A conversion blob of (source, target, date, pair, direction)."""
    header = struct.pack("<III", magic, len(years), 12 + 4 * len(years)) + struct.pack(f"<{len(years)}I", *years)
    return padded(header + b"".join(struct.pack("<8s8sIHB", s.encode(), t.encode(), d, p, x) for s, t, d, p, x in rows))


def padded(blob: bytes) -> bytes:
    return blob + b"\0" * (-len(blob) % 8)


def write_lmdb(path: Path, tables: Mapping[str, bytes]) -> Path:
    """A single-file LMDB environment whose keys are padded as in the real one."""
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 22) as environment,
        environment.begin(write=True) as t,
    ):
        for name, blob in tables.items():
            t.put(padded(name.encode()), blob)
    return path


# One chapter of three blocks (one of them a block of blocks), four categories.
TABULAR_XML = """<?xml version="1.0" encoding="utf-8"?>
<ICD10CM.tabular>
  <version>2021</version>
  <introduction><introSection type="title"><title>made up</title></introSection></introduction>
  <chapter>
    <name>1</name>
    <desc>Afflictions of teapots (A00-B99)</desc>
    <includes><note>teapots of any
       material</note></includes>
    <excludes1><note>kettles (C00.-)</note></excludes1>
    <sectionIndex><sectionRef first="A00" last="A09" id="A00-A09">Leaks</sectionRef></sectionIndex>
    <section id="A00-A19">
      <desc>Leaks and cracks (A00-A19)</desc>
      <excludes2><note>spilt milk (Z99)</note></excludes2>
    </section>
    <section id="A00-A09">
      <desc>Leaks (A00-A09)</desc>
      <diag>
        <name>A00</name>
        <desc>Leak of spout</desc>
        <inclusionTerm><note>Dripping spout</note><note>Weeping spout</note></inclusionTerm>
        <diag><name>A00.0</name><desc>Leak of spout, slow</desc></diag>
        <diag><name>A00.1</name><desc>Leak of spout, f&#233;roce</desc>
          <useAdditionalCode><note>code for puddle (B99.-)</note></useAdditionalCode></diag>
      </diag>
      <diag><name>A0A</name><desc>Leak of lid</desc></diag>
      <diag><name>A01</name><desc>Leak of handle</desc></diag>
    </section>
    <section id="A10-A19">
      <desc>Cracks (A10-A19)</desc>
      <diag>
        <name>A10</name>
        <desc>Crack of teapot</desc>
        <sevenChrNote><note>A seventh character is to be added</note></sevenChrNote>
        <sevenChrDef>
          <extension char="A">first pouring</extension>
          <note>first pouring NOS</note>
          <extension char="D">later pouring</extension>
        </sevenChrDef>
        <diag><name>A10.0</name><desc>Crack of belly</desc></diag>
        <diag><name>A10.11</name><desc>Crack of base</desc>
          <codeFirst><note>hot plate (B99)</note></codeFirst></diag>
        <diag placeholder="true"><name>A10.2X</name><desc>Crack, other</desc>
          <diag><name>A10.2X1</name><desc>Crack, other, right</desc></diag></diag>
      </diag>
    </section>
    <section id="B99">
      <desc>Other afflictions (B99)</desc>
      <codeAlso><note>owner (Z00)</note></codeAlso>
      <notes><note>Use sparingly.</note></notes>
      <diag><name>B99</name><desc>Other and unspecified afflictions</desc>
        <diag><name>B99.9</name><desc>Unspecified affliction</desc>
          <visualImpairment>
            <visCategory><heading>Category of sight</heading><visRange>
            <visMax><heading>Less than:</heading></visMax>
            <visMin><heading>At least:</heading></visMin></visRange></visCategory>
            <visCategory><value>1</value><visRange><visMax><value>6/18</value></visMax>
            <visMin><value>6/60</value></visMin></visRange></visCategory>
          </visualImpairment>
        </diag></diag>
    </section>
  </chapter>
</ICD10CM.tabular>
"""

HIERARCHY = {
    "tree": {
        "id": "root",
        "children": [
            {
                "id": "Afflictions of teapots (A00-B99)",
                "children": [
                    {
                        "id": "Leaks (A00-A09)",
                        "children": [
                            {
                                "id": "A00",
                                "description": "Leak of spout",
                                "children": [
                                    {"id": "A00.0", "description": "Leak of spout, slow"},
                                    {"id": "A00.2", "description": "Leak of spout, odd"},
                                ],
                            }
                        ],
                    },
                    {
                        "id": "Cracks (A10-A19)",
                        "children": [
                            {
                                "id": "A10",
                                "description": "Crack of teapot",
                                "children": [
                                    {
                                        "id": "A10.0",
                                        "description": "Crack of belly",
                                        "children": [{"id": "A10.0XXA", "description": "Crack of belly first pouring"}],
                                    }
                                ],
                            }
                        ],
                    },
                    {"id": "Other afflictions (B99)", "children": [{"id": "B99", "description": "Other"}]},
                ],
            }
        ],
    },
    "codes": [],
}


def order_line(number: int, code: str, billable: int, short: str, long: str) -> str:
    return f"{number:05d} {code:<7} {billable} {short:<60} {long}"


ORDER = "\n".join(
    order_line(*line)
    for line in [
        (1, "A00", 0, "Leak of spout", "Leak of spout"),
        (2, "A000", 1, "Leak of spout, slow", "Leak of spout, slow"),
        (3, "A001", 1, "Leak of spout, feroce", "Leak of spout, feroce"),
        (4, "A0A", 1, "Leak of lid", "Leak of lid"),
        (5, "A10", 0, "Crack of teapot", "Crack of teapot"),
        (6, "A100", 0, "Crack of belly", "Crack of belly"),
        (7, "A100XXA", 1, "Crack of belly, first", "Crack of belly, first pouring"),
        (8, "A10911", 1, "Crack, new", "Crack, new this year"),
    ]
)


def write_procedures(path: Path, rows: Iterable[tuple[str, str, str, tuple[str, ...]]]) -> Path:
    """An SQLite database of procedure codes: (code, short title, title, seven labels)."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table pcs_codes (code text, billable integer, short_name text, long_name text)")
        columns = ", ".join(
            f"{name} text" for name in ("sec_def", "bs_def", "ro_def", "bp_def", "ap_def", "dv_def", "qu_def")
        )
        connection.execute(f"create table pcs_tree (code text, {columns})")
        for code, short, long, labels in rows:
            connection.execute("insert into pcs_codes values (?, 1, ?, ?)", (code, short, long))
            connection.execute("insert into pcs_tree values (?, ?, ?, ?, ?, ?, ?, ?)", (code, *labels))
    return path


def write_diagnoses(path: Path, rows: Iterable[tuple[str, int, str, str]]) -> Path:
    """An SQLite order file: (code, billable, short title, title)."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "create table cm_codes (code text, code_dot text, billable integer, short_name text, long_name text)"
        )
        connection.executemany("insert into cm_codes values (?, '', ?, ?, ?)", rows)
    return path


def ccir(rows: Iterable[tuple[str, str]]) -> bytes:
    out = io.StringIO()
    out.write("Made-up indicator,,\n(0=no 1=yes),,\n'MADE-UP CODE','DESCRIPTION','INDICATOR'\n")
    writer = csv.writer(out)
    writer.writerows((f"'{code}'", title, 0) for code, title in rows)
    return out.getvalue().encode()


def make_wheel(directory: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A valid wheel of nothing but data files."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in contents.items():
            archive.writestr(zipfile.ZipInfo(member), data)
    return path


def pin(path: Path, files: Iterable[tuple[str, str, str]] = (), default: bool = True) -> Wheel:
    """The pin of a wheel made by ``make_wheel``; ``files``: (path inside, format, release)."""
    data = path.read_bytes()
    name, version = path.name.split("-")[:2]
    wheel = Wheel(
        name.replace("_", "-"),
        version,
        path.name,
        hashlib.sha256(data).hexdigest(),
        len(data),
        "3.11",
        "any",
        default,
        (),
    )
    entries = tuple(SourceFile(p, format, release, ("everything",), wheel) for p, format, release in files)
    object.__setattr__(wheel, "files", entries)
    return wheel
