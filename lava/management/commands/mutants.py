"""`manage.py mutants [pytest arguments]`: put each hand-written fault into the product, and see
that a named test catches it.

The faults and the tests that catch them are in tests/mutants; this only runs them, one line each.
"""

from __future__ import annotations

from lava.management.passing import Passing


class Command(Passing):
    help = "Put each hand-written fault into the product; a named test must catch it."
    program = ("-m", "pytest", "-v", "tests/mutants")
