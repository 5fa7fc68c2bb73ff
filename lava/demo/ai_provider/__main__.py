"""`python -m lava.demo.ai_provider --port P`: run the provider until told to stop.

Prints its address on one line when it is ready; ends on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from lava.demo.ai_provider.server import Server


def main() -> int:
    """Serve; answers the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lava.demo.ai_provider",
        description="A local AI provider that answers as OpenAI, Anthropic and Gemini do.",
    )
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    options = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="ai provider: %(levelname)s %(message)s"
    )
    server = Server(options.port)

    def stop(*_: object) -> None:
        # shutdown() waits for serve_forever(), which runs in this very thread.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"ai provider on {server.url}", flush=True)
    server.serve_forever(poll_interval=0.2)
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
