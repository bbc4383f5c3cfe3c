"""Settings: flags before the environment before the file, and every one of them explained everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_harness import ROOT

from engine import errors
from engine.cli import main
from engine.cli import serving as command
from engine.server import ServerConfig
from engine.server.settings import load, settings, table


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in settings():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("CODESET_ENGINE_CONFIG", raising=False)


def test_flags_before_environment_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1\nmax_items = 2\nthreads = 3\nreleases = ["icd10cm", "msdrg/43.1"]\nreflection = false\n')
    monkeypatch.setenv("CODESET_ENGINE_PORT", "10")
    monkeypatch.setenv("CODESET_ENGINE_MAX_ITEMS", "20")
    found = load({"port": "100", "host": None}, file)
    assert (found.port, found.max_items, found.threads, found.grace) == (100, 20, 3, 30.0)
    assert found.releases == ("icd10cm", "msdrg/43.1")
    assert not found.reflection
    assert type(found) is ServerConfig
    monkeypatch.setenv("CODESET_ENGINE_RELEASES", "icd10pcs, msdrg")
    monkeypatch.setenv("CODESET_ENGINE_CONFIG", str(file))
    found = load()
    assert (found.releases, found.threads) == (("icd10pcs", "msdrg"), 3)


def test_nothing_given_is_the_default() -> None:
    assert load() == ServerConfig()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("port = [", "config"),
        ("prot = 1", "prot"),
        ("port = 70000", "port"),
        ("port = 'http'", "port"),
        ("[server]\nport = 1", "server"),
        ("tls_key = 'a'", "tls_certificate"),
        ("log_level = 'loud'", "log_level"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(errors.InvalidFieldError, match=field) as raised:
        load({}, file)
    assert raised.value.field == field
    with pytest.raises(errors.InvalidFieldError, match="config"):
        load({}, tmp_path / "nothing.toml")


def test_a_wrong_variable_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESET_ENGINE_GRACE", "soon")
    with pytest.raises(errors.InvalidFieldError, match=r"grace.*'soon'"):
        load()


def test_the_command_gives_what_its_flags_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[ServerConfig] = []
    monkeypatch.setattr("engine.server.serve", seen.append, raising=False)
    file = tmp_path / "server.toml"
    file.write_text("verify = false\nmax_streams = 7\n")

    def run(*arguments: str) -> ServerConfig:
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments])
        assert ended.value.code == 0
        return seen.pop()

    assert run() == ServerConfig()
    got = run("--port", "0", "--release", "icd10cm", "--release", "msdrg/43.1", "--lazy", "--no-reflection")
    assert got == ServerConfig(port=0, releases=("icd10cm", "msdrg/43.1"), verify=False, reflection=False)
    got = run("--config", str(file), "--verify", "--grace", "1.5", "--store", str(tmp_path))
    assert got == ServerConfig(max_streams=7, grace=1.5, store=tmp_path)
    assert run("--host", "0.0.0.0", "--allow-remote-plaintext").allow_remote_plaintext


def test_every_setting_is_a_flag_with_its_help(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for setting in settings():
        assert setting.help
        assert setting.help[0].isupper()
        assert setting.flag.split("/")[0] in shown
        assert setting.help in shown
    assert {flag.name for flag in command._flags()} == {"config", *ServerConfig.model_fields}


def test_help_of_serve_loads_neither_numpy_nor_the_core() -> None:
    code = (
        "import sys\nfrom engine.cli import main\n"
        "try:\n    main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(', '.join({'numpy', 'engine._core', 'engine.library'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_table_in_the_docs_is_of_these_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"<!-- settings -->\n\n(.*?)\n<!-- /settings -->", page, re.DOTALL)
    assert found == table()
