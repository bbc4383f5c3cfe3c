"""``python -m engine.cli``: the same as ``codeset-engine``."""

from . import main

main()
