"""The client stays thin."""

from __future__ import annotations

import json
import subprocess
import sys

from server_harness import ROOT


def loaded(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after ``statement``."""
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    modules: list[str] = json.loads(done.stdout)
    return set(modules)


def test_importing_the_client_loads_neither_numpy_nor_the_core() -> None:
    modules = loaded("import engine.client; engine.client.Client().close(); engine.client.AsyncClient()")
    tops = {name.partition(".")[0] for name in modules}
    assert not tops & {
        "numpy",
        "marisa_trie",
        "lmdb",
        "xxhash",
        "rich",
        "typer",
        "platformdirs",
        "codesets",
        "pydantic",
        "pydantic_settings",
        "prometheus_client",
    }
    ours = {name for name in modules if name.partition(".")[0] == "engine"}
    allowed = ("engine.client", "engine._pb")
    assert {name for name in ours if not name.startswith(allowed)} == {
        "engine",
        "engine.errors",
        "engine.rpc",
    }
