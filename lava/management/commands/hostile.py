"""`manage.py hostile [--count 50000] [--seed N]`: send hostile inputs to every field and address.

The inputs are in tests/security/hostile.py; this only starts them, in a database of their own that
is dropped afterwards.
"""

from __future__ import annotations

from lava.management.passing import Passing


class Command(Passing):
    help = "Send hostile inputs to every field and address; count 5xx, HTML, rows written."
    program = ("-m", "tests.security.hostile")
