"""Places where a process can be told to die, so that tests/chaos sees what a fault there leaves.

`at` does nothing unless `LAVA_FAIL_DIR` names a folder, and `lava.settings` refuses that in
production. A file in the folder, named as a place, arms it: the first process that comes by takes
the file away and is killed, as by `kill -9`. Any verb may call `at`; it holds no state.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

FOLDER = Path(os.environ["LAVA_FAIL_DIR"]) if os.environ.get("LAVA_FAIL_DIR") else None

# What a charge of each purpose passes: its row is committed; the network was asked, and the answer
# is not entered; entered and not committed; committed.
CHARGE = ("intended", "charged", "settling", "settled")
PLACES = (
    *(f"{purpose}.{step}" for purpose in ("overage", "renewal", "top_up") for step in CHARGE),
    *(f"refund.{step}" for step in ("intended", "sent", "settling", "settled")),
    # The network's events: stored and not acted on; acted on and not marked.
    "event.stored",
    "event.handled",
    # Our own events: a delivery is leased and not sent; sent and not marked.
    "delivery.claimed",
    "delivery.sent",
    # Mails and texts: taken up and not sent; sent and not noted; noted.
    "message.taken",
    "message.sent",
    "message.noted",
    # A call through the gateway: held and not forwarded; its answer has begun to pass; it has ended
    # and is not settled; settled and not said to be.
    "call.held",
    "call.streaming",
    "call.ended",
    "call.settled",
)


def at(place: str) -> None:
    """Die here, if this place is armed."""
    if FOLDER is None:
        return
    try:
        (FOLDER / place).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
