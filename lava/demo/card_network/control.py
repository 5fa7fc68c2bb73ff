"""The control endpoints under /_control: faults, clock, webhooks, cards, disputes, journal, reset.

For tests and the demo only; the package's docstring says what each takes and answers. Called by the
server, which lets no browser reach them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from lava.demo.card_network import calls, cards, events, faults, journal, store, webhooks
from lava.demo.card_network.calls import Call, Json
from lava.demo.card_network.errors import ApiError
from lava.demo.card_network.params import Params
from lava.demo.card_network.resources import (
    disputes,
    payment_intents,
    refunds,
    setup_intents,
)
from lava.demo.card_network.store import Record, Store


class Control:
    """Answers control requests. `wake` is called when the sender of events should look again."""

    def __init__(self, store: Store, *, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake
        self._actions: dict[str, Callable[[Json], Json]] = {
            "GET /_control/health": self._health,
            "POST /_control/reset": self._reset,
            "GET /_control/journal": self._journal,
            "GET /_control/faults": lambda _: {"data": faults.armed(self._store)},
            "POST /_control/faults": self._arm,
            "DELETE /_control/faults": self._disarm,
            "GET /_control/clock": lambda _: self._clock(),
            "POST /_control/clock": self._set_clock,
            "GET /_control/webhooks": lambda _: webhooks.overview(self._store),
            "POST /_control/webhooks": self._set_webhooks,
            "POST /_control/webhooks/resend": self._resend,
            "POST /_control/cards": self._set_card,
            "POST /_control/authenticate": self._authenticate,
            "POST /_control/refunds": self._move_refund,
            "POST /_control/disputes/open": self._open_dispute,
            "POST /_control/disputes/close": self._close_dispute,
        }

    def answer(self, method: str, path: str, query: dict[str, str], body: str) -> tuple[int, Json]:
        """Status and JSON of one control request; what is wrong with it is said in words."""
        action = self._actions.get(f"{method} {path}")
        if action is None:
            return 404, {"error": f"no control endpoint {method} {path}"}
        try:
            order = json.loads(body) if body.strip() else dict(query)
            if not isinstance(order, dict):
                raise TypeError("the body must be a JSON object")
            with self._store.transaction():
                result = action(order)
        except ApiError as error:
            return error.status, error.body
        except (ValueError, TypeError, KeyError) as error:
            return 400, {"error": str(error)}
        self._wake()
        return 200, result

    def _health(self, _: Json) -> Json:
        return {"ok": True, "now": self._store.now()}

    def _reset(self, order: Json) -> Json:
        mode = order.get("mode")
        if mode not in (None, *store.MODES):
            raise ValueError("mode must be test or live")
        self._store.reset(mode)
        return {"reset": mode or "all"}

    def _journal(self, order: Json) -> Json:
        found = journal.entries(
            self._store,
            mode=order.get("mode"),
            method=order.get("method"),
            path=order.get("path"),
            idempotency_key=order.get("idempotency_key"),
            after=int(order.get("after", 0)),
            limit=int(order.get("limit", 1000)),
        )
        return {"data": found}

    def _arm(self, order: Json) -> Json:
        fault, times = faults.read(order)
        faults.arm(self._store, fault, times)
        return {"data": faults.armed(self._store)}

    def _disarm(self, _: Json) -> Json:
        faults.disarm(self._store)
        return {"data": []}

    def _clock(self) -> Json:
        return {
            "now": self._store.now(),
            "offset_s": self._store.setting("clock_offset_s", 0),
        }

    def _set_clock(self, order: Json) -> Json:
        offset = int(self._store.setting("clock_offset_s", 0))
        if "offset_s" in order:
            offset = int(order["offset_s"])
        offset += int(order.get("advance_s", 0))
        self._store.set("clock_offset_s", offset)
        return self._clock()

    def _set_webhooks(self, order: Json) -> Json:
        checks: dict[str, Callable[[Any], bool]] = {
            "url": lambda value: value is None or urlsplit(value).scheme in ("http", "https"),
            "mode": lambda value: value in ("send", "hold", "drop"),
            "copies": lambda value: isinstance(value, int) and 1 <= value <= 1000,
            "reverse": lambda value: isinstance(value, bool),
            "delay_ms": lambda value: isinstance(value, int) and value >= 0,
        }
        for name, value in order.items():
            if name not in checks or not checks[name](value):
                raise ValueError(f"{name}: not a setting, or not a value it can have")
            self._store.set(f"webhook_{name}", value)
        if order.get("mode") == "send":
            # What failed or waited while held goes out now, not after its pause.
            self._store.write("UPDATE deliveries SET next_at = 0 WHERE state = 'pending'")
        return webhooks.overview(self._store)

    def _resend(self, order: Json) -> Json:
        event = self._get("event", str(order["event"]))
        for _ in range(int(order.get("times", 1))):
            events.queue(self._store, event)
        return {"queued": int(order.get("times", 1))}

    def _set_card(self, order: Json) -> Json:
        method = self._get("payment_method", str(order["payment_method"]))
        number = str(order["behave_as"])
        if number not in cards.CARDS:
            raise ValueError("behave_as must be one of the test card numbers")
        method.hidden["behave_as"] = number
        self._store.save(method)
        return {"payment_method": method.id, "behave_as": number}

    def _authenticate(self, order: Json) -> Json:
        id = str(order["intent"])
        resource = payment_intents if id.startswith("pi_") else setup_intents
        intent = self._get("payment_intent" if id.startswith("pi_") else "setup_intent", id)
        call = self._call(intent)
        approve = bool(order.get("approve", True))
        try:
            body: Json = resource.authenticate(call, intent, approve=approve)
            return body
        except ApiError as error:
            # A bank that declines after the approval: what it wrote stays, as over the API.
            if error.status != 402:
                raise
            return error.body

    def _move_refund(self, order: Json) -> Json:
        if "next" in order:
            if order["next"] not in (None, "pending"):
                raise ValueError("next must be pending")
            self._store.set("next_refund", order["next"])
            return {"next": order["next"]}
        status = order.get("status")
        if status not in ("succeeded", "failed"):
            raise ValueError("status must be succeeded or failed")
        refund = self._get("refund", str(order["refund"]))
        return refunds.move(self._call(refund), refund, status=str(status)).body

    def _open_dispute(self, order: Json) -> Json:
        if "charge" in order:
            charge = self._get("charge", str(order["charge"]))
        else:
            intent = self._get("payment_intent", str(order["payment_intent"]))
            charge = self._get("charge", str(intent.body["latest_charge"]))
        return disputes.open_dispute(
            self._call(charge),
            charge,
            amount=order.get("amount"),
            reason=str(order.get("reason", "fraudulent")),
        ).body

    def _close_dispute(self, order: Json) -> Json:
        dispute = self._get("dispute", str(order["dispute"]))
        status = order.get("status", "lost")
        if status not in ("won", "lost"):
            raise ValueError("status must be won or lost")
        return disputes.close_dispute(self._call(dispute), dispute, won=status == "won").body

    def _get(self, kind: str, id: str) -> Record:
        """An object of either mode."""
        record = self._store.find(id)
        if record is None or record.kind != kind:
            raise ValueError(f"no {kind} {id}")
        return record

    def _call(self, subject: Record) -> Call:
        """A call of the network's own, for events that nobody asked for over the API: in the mode
        and account of their subject."""
        account = str(subject.hidden.get("account", calls.HOME))
        return Call(
            self._store,
            subject.mode,
            False,
            Params({}),
            store.new_id("req")[:18],
            None,
            self._store.now(),
            calls.API_VERSION,
            account,
        )
