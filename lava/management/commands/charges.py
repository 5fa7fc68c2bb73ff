"""`manage.py charges [--count 10000] [--faults 10] [--seed N]`: card operations over a network that
misbehaves in so many of a hundred; at the end both sides' payments are compared to the cent.

The operations are in tests/chaos/charges.py; this only starts them, in a database and with a card
network of their own.
"""

from __future__ import annotations

from lava.management.passing import Passing


class Command(Passing):
    help = "Make card operations over a faulty network; compare both sides' payments."
    program = ("-m", "tests.chaos.charges")
