"""The command line as a whole: help, version, start-up, exit statuses, serving."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import serving

import engine
from engine.client import Client

COMMANDS = ["build", "publish", "list", "info", "verify", "lookup", "validate", "tree", "serve", "group", "explain"]


def test_help_names_every_command(run):
    found = run("--help")
    assert found.status == 0
    for command in COMMANDS:
        assert f"  {command} " in found.out
    assert "Exit status" in found.out


@pytest.mark.parametrize("command", [*COMMANDS, "group drg", "explain drg"])
def test_every_option_of_every_command_is_explained(run, command):
    found = run(*command.split(), "--help")
    assert found.status == 0
    assert "Usage: codeset-engine" in found.out
    for line in found.out.splitlines():
        if line.strip().startswith("--"):
            assert "  " in line.strip() or len(line) > 24, line


def test_version(run):
    assert run("--version").out.startswith("codeset-engine 0.")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["validate"], ["list", "--nonsense"], ["build", "--jobs", "0"], ["group", "drg"]]
)
def test_wrong_usage_is_unusable_input(run, arguments):
    found = run(*arguments)
    assert found.status == 2
    assert "Usage: codeset-engine" in found.err
    assert found.out == ""


def test_help_is_quick_to_load():
    """It loads neither NumPy nor gRPC nor the core nor protobuf: that is what makes it quick."""
    code = (
        "import sys\n"
        "from engine.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'numpy', 'grpc', 'google.protobuf', 'engine._core', 'engine._msdrg', 'codesets'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_as_a_module(store):
    command = [sys.executable, "-m", "engine.cli", "validate", "icd10cm", "A00.0", "A00"]
    environment = os.environ | {"CODESET_ENGINE_PACKS": str(store)}
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert found.returncode == 1
    assert "HEADER" in found.stdout
    assert found.stderr == ""


def test_an_expected_error_is_one_line_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "engine.cli", "validate", "icd10cm", "A00", "--store", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("PACK_NOT_FOUND: ")
    assert found.stderr.count("\n") == 1
    assert found.stdout == ""


def test_a_reader_that_goes_away_is_no_traceback(store):
    """``codeset-engine tree … | head -1``."""
    command = [sys.executable, "-m", "engine.cli", "tree", "icd10cm", "19", "--depth", "0", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_serve(store, tmp_path):
    with serving(store, tmp_path, "--release", "icd10cm/2027", "--release", "msdrg") as (address, process):
        assert process.stdout.readline() == f"listening {address}\n"
        with Client(address) as client:
            served = {f"{release.system}/{release.release}" for release in client.releases()}
            assert client.validate("icd10cm", "A00.0", release="2027").valid
            with pytest.raises(engine.UnknownSystemError):
                client.validate("icd10pcs", "0DB64Z3")
    assert served == {"icd10cm/2027"} | {f"msdrg/{path.name}" for path in (store / "msdrg").iterdir()}
    assert process.returncode == 0
    assert not (tmp_path / "port").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--host", "0.0.0.0"], "ADDRESS_UNAVAILABLE"),
        (["--port", "70000"], "INVALID_FIELD"),
        (["--max-items", "0"], "INVALID_FIELD"),
        (["--release", "icd10cm/1999"], "UNKNOWN_RELEASE"),
    ],
)
def test_serve_refuses(run, arguments, code):
    found = run("serve", "--lazy", *arguments)
    assert found.status == 2
    assert found.err.splitlines()[-1].startswith(f"{code}: ")


def test_serve_on_a_port_that_is_taken(run, server):
    found = run("serve", "--lazy", "--release", "msdrg/43.1", "--port", server.rpartition(":")[2])
    assert found.status == 2
    assert found.err.splitlines()[-1].startswith("ADDRESS_UNAVAILABLE: ")


def test_the_default_store_is_the_configured_one(run, tmp_path, monkeypatch):
    monkeypatch.setenv("CODESET_ENGINE_PACKS", str(tmp_path / "elsewhere"))
    found = run("verify")
    assert found.status == 2
    assert str(Path(tmp_path / "elsewhere")) in found.err
