"""The extension modules. Everything else about the project is in pyproject.toml.

``CODESET_ENGINE_DEBUG=1`` builds with bounds checks and assertions on, ``CODESET_ENGINE_ANNOTATE=1`` writes Cython's
annotated HTML beside each source.
"""

import os

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("CODESET_ENGINE_DEBUG") == "1"
ANNOTATE = os.environ.get("CODESET_ENGINE_ANNOTATE") == "1"

extensions = [
    Extension(
        f"engine.{name}",
        [f"engine/{name.replace('.', '/')}.pyx"],
        include_dirs=[np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=["-O1", "-UNDEBUG"] if DEBUG else ["-O3"],
    )
    for name in (
        "_calls",
        "_claims",
        "_core",
        "_hcc",
        "_mce",
        "_msdrg",
        "_wire",
        "_wire_codes",
        "_wire_hcc",
        "_wire_mce",
        "client._fast",
    )
]

setup(
    ext_modules=cythonize(
        extensions,
        annotate=ANNOTATE,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "embedsignature": False,
        },
    )
)
