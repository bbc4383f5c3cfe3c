"""Somebody else's extension uses the core through its ``.pxd``, without the GIL."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from codes_made_up import FROM, in_memory, tables

import engine

_SETUP = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
extension = Extension("cython_consumer", ["cython_consumer.pyx"])
setup(name="cython-consumer", ext_modules=cythonize([extension], include_path=[sys.argv.pop()]))
"""


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    place = tmp_path_factory.mktemp("consumer")
    shutil.copy(Path(__file__).with_name("cython_consumer.pyx"), place)
    (place / "setup.py").write_text(_SETUP)
    # Where the package lies: an editable install need not be on the path that Cython searches.
    installed = str(Path(engine.__file__).parents[1])
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", installed]
    built = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    (library,) = place.glob("cython_consumer.*.so")
    spec = importlib.util.spec_from_file_location("cython_consumer", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_consumer_asks_without_the_gil(consumer: ModuleType) -> None:
    system = in_memory(tables())
    codes = np.array(["U00.11", "u0012", "U00", "V000", "", "U01", "U00.11 x"] * 50, "S9")
    valid = int((system.validate_many(codes) == 1).sum())
    assert consumer.count_valid(system._index, codes.view(np.uint8).reshape(-1, 9), FROM) == (valid, valid)
    assert valid == 150


def test_a_consumer_walks_the_tree(consumer: ModuleType) -> None:
    index = in_memory(tables())._index
    assert consumer.walk(index, b"U00", FROM) == (2, 1, 2, 4, 6, 0, True)
    assert consumer.walk(index, b"u00.9", FROM) == (6, 2, 0, 0, 1, 20201001, True)
    assert consumer.walk(index, b"U00.9", 20170101) == (6, 2, 0, 0, 1, 20151001, True)
    assert consumer.walk(index, b"Z", FROM) == (-1, -1, 0, 0, 0, 0, False)
