"""The sender of events: one thread that POSTs what is queued, and tries again while the receiver is
down.

Started by the server. All its state is in the store, so what was not delivered before a kill is
delivered after the restart. Like Stripe it promises no order: a failed event does not hold up the
next.
"""

from __future__ import annotations

import http.client
import logging
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lava.demo.card_network import events
from lava.demo.card_network.store import Record, Store

log = logging.getLogger(__name__)

_TIMEOUT_S = 20
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_GIVE_UP_AFTER_S = 3 * 24 * 3600
_IDLE_S = 5.0


@dataclass(frozen=True)
class Secrets:
    """The signing secret of each mode's receiver (`whsec_...`)."""

    test: str
    live: str

    def of(self, mode: str) -> str:
        """The secret for events of this mode."""
        return self.live if mode == "live" else self.test


class Sender:
    """Delivers queued events until stopped."""

    def __init__(self, store: Store, secrets: Secrets) -> None:
        self._store = store
        self._secrets = secrets
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin delivering."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the queue now: something was committed or a setting changed."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread; what is in flight is sent again after the next start."""
        self._stopped = True
        self._wake.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                pause = self._step()
            except Exception:
                log.exception("delivery failed")
                pause = 1.0
            if pause > 0:
                self._wake.wait(pause)

    def _step(self) -> float:
        """Send the next due event; answers how many seconds to sleep before looking again."""
        store = self._store
        url = store.setting("webhook_url", None)
        if not url or store.setting("webhook_mode", "send") != "send":
            return _IDLE_S
        order = "DESC" if store.setting("webhook_reverse", False) else "ASC"
        now = time.time()
        due = store.query(
            "SELECT seq, event, attempts, first_at FROM deliveries "  # noqa: S608  (order is ours)
            f"WHERE state = 'pending' AND next_at <= ? ORDER BY seq {order} LIMIT 1",
            (now,),
        )
        if not due:
            soonest = store.query("SELECT min(next_at) FROM deliveries WHERE state = 'pending'")
            next_at = soonest[0][0]
            return _IDLE_S if next_at is None else min(max(next_at - now, 0.01), _IDLE_S)
        seq, event_id, attempts, first_at = due[0]
        event = store.find(event_id)
        if event is None:
            store.write("DELETE FROM deliveries WHERE seq = ?", (seq,))
            return 0
        results = [
            self._post(url, event) for _ in range(max(1, int(store.setting("webhook_copies", 1))))
        ]
        self._note(seq, event, attempts + 1, first_at, results)
        return 0

    def _post(self, url: str, event: Record) -> tuple[int | None, str | None]:
        """One attempt: status and error, of which one is None. Signed with the real time of now."""
        parts = urlsplit(url)
        body = events.payload(event)
        connection_class = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        connection = connection_class(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Accept": "*/*",
            "Stripe-Signature": events.signature(
                body, self._secrets.of(event.mode), at=int(time.time())
            ),
        }
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body=body, headers=headers)
            response = connection.getresponse()
            response.read(65536)
            return response.status, None
        except (OSError, http.client.HTTPException) as error:
            return None, f"{type(error).__name__}: {error}"
        finally:
            connection.close()

    def _note(
        self,
        seq: int,
        event: Record,
        attempts: int,
        first_at: float,
        results: list[tuple[int | None, str | None]],
    ) -> None:
        """Write down how an attempt went, and when the next one is due."""
        status, error = results[-1]
        delivered = any(code is not None and 200 <= code < 300 for code, _ in results)
        now = time.time()
        pause = min(_FIRST_PAUSE_S * 2 ** min(attempts - 1, 20), _LONGEST_PAUSE_S)
        if delivered:
            state = "delivered"
        else:
            state = "given_up" if now - first_at > _GIVE_UP_AFTER_S else "pending"
        with self._store.transaction():
            self._store.write(
                "UPDATE deliveries SET state = ?, attempts = ?, next_at = ?, last_status = ?, "
                "last_error = ? WHERE seq = ? AND state = 'pending'",
                (state, attempts, now + pause, status, error, seq),
            )
            if delivered:
                fresh = self._store.find(event.id)
                if fresh is not None:
                    fresh.body["pending_webhooks"] = 0
                    self._store.save(fresh)


def overview(store: Store) -> dict[str, Any]:
    """What GET /_control/webhooks answers: settings, counts by state, the last 200 deliveries."""
    rows = store.query(
        "SELECT event, mode, type, state, attempts, last_status, last_error "
        "FROM deliveries ORDER BY seq DESC LIMIT 200"
    )
    names = ("event", "livemode", "type", "state", "attempts", "last_status", "last_error")
    counts = dict(store.query("SELECT state, count(*) FROM deliveries GROUP BY state"))
    return {
        "url": store.setting("webhook_url", None),
        "mode": store.setting("webhook_mode", "send"),
        "copies": store.setting("webhook_copies", 1),
        "reverse": store.setting("webhook_reverse", False),
        "delay_ms": store.setting("webhook_delay_ms", 0),
        "counts": {
            state: counts.get(state, 0) for state in ("pending", "delivered", "dropped", "given_up")
        },
        "deliveries": [
            dict(zip(names, (row[0], row[1] == "live", *row[2:]), strict=True))
            for row in reversed(rows)
        ],
    }
