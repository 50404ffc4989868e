"""One module per family of ``rdx explain`` methods: gather its inputs, run it, write its artifact.

A module offers ``explain(options) -> Outcome`` and ``plan(options) -> dict`` (for ``--dry-run``).
"""
