"""`python -m lava.demo.card_network --port P --state FILE [...]`: run the network until told to
stop.

Prints its address on one line when it is ready; ends on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from lava.demo.card_network import webhooks
from lava.demo.card_network.server import Server
from lava.demo.card_network.store import Store


def main() -> int:
    """Serve; answers the exit status."""
    options = _options()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="card network: %(levelname)s %(message)s"
    )
    options.state.parent.mkdir(parents=True, exist_ok=True)
    store = Store(options.state)
    if options.webhook_url:
        store.set("webhook_url", options.webhook_url)
    secrets = webhooks.Secrets(test=options.webhook_secret_test, live=options.webhook_secret_live)
    server = Server(options.port, store, secrets)

    def stop(*_: object) -> None:
        # shutdown() waits for serve_forever(), which runs in this very thread.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.sender.start()
    print(f"card network on {server.url}", flush=True)
    server.serve_forever(poll_interval=0.2)
    server.sender.stop()
    server.server_close()
    store.close()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lava.demo.card_network",
        description="A local card network that speaks Stripe's API on 127.0.0.1.",
    )
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="SQLite file; made when missing")
    parser.add_argument("--webhook-url", help="where signed events are sent; kept in the state")
    parser.add_argument("--webhook-secret-test", default="whsec_test_local")
    parser.add_argument("--webhook-secret-live", default="whsec_live_local")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
