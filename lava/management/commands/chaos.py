"""`manage.py chaos --minutes 30 [--seed N] [--json FILE] [--forgetful | --fault NAME]`: kill
everything again and again under load, and count what was lost.

The storm is in tests/chaos/storm.py; this only starts it, on a product of its own that is gone
afterwards.
"""

from __future__ import annotations

from lava.management.passing import Passing


class Command(Passing):
    help = "Kill web workers, workers, broker and database under load; count lost, double, drift."
    program = ("-m", "tests.chaos.storm")
