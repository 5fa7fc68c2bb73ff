"""One API call as the resources see it: who calls, with what, at what time, on which store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lava.demo.card_network import errors, store
from lava.demo.card_network.params import Params
from lava.demo.card_network.store import Record, Store

Json = dict[str, Any]
Handler = Callable[["Call", str], Json]

# The account of the keys that end in `_local`; other keys open accounts of their own.
HOME = "acct_localcardnetwork"

# The API version that stripe 16.1 pins; a call's Stripe-Version header says otherwise.
API_VERSION = "2026-10-28.endive"

_NOUNS = {"payment_method": "PaymentMethod", "setup_intent": "setupintent"}
_PREFIXES = {
    "customer": "cus",
    "payment_method": "pm",
    "payment_intent": "pi",
    "setup_intent": "seti",
    "charge": "ch",
    "refund": "re",
    "dispute": "du",
    "event": "evt",
}


def account_of(key: str) -> str:
    """The account that a key opens: secret and publishable keys of one name share it."""
    name = key.split("_", 2)[-1]
    return HOME if name == "local" else f"acct_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@dataclass
class Call:
    """`mode` is "test" or "live", `now` whole seconds of the network's clock, `publishable` says
    that a page called and not a server."""

    store: Store
    mode: str
    publishable: bool
    params: Params
    request_id: str
    idempotency_key: str | None
    now: int
    api_version: str = API_VERSION
    account: str = HOME

    @property
    def livemode(self) -> bool:
        """Stripe's word for the mode."""
        return self.mode == "live"

    def new(self, kind: str, body: Json, *, id: str | None = None, **hidden: Any) -> Record:
        """Make and keep an object: `id`, `object`, `created` and `livemode` are filled in."""
        id = id or store.new_id(_PREFIXES[kind])
        head: Json = {"id": id, "object": kind, "created": self.now, "livemode": self.livemode}
        hidden["account"] = self.account
        return self.store.add(Record(id, self.mode, kind, head | body, hidden))

    def get(self, kind: str, id: str, *, param: str | None = None) -> Record:
        """The object of this kind, id and mode.

        `param` names the parameter that held the id; without it the path did. Raises ApiError
        `resource_missing`, 400 and 404 in turn.
        """
        record = self.store.find(id)
        if record is not None and record.hidden.get("account", HOME) != self.account:
            record = None
        if record is not None and record.kind == kind and record.mode == self.mode:
            return record
        other = record.mode if record is not None and record.kind == kind else None
        path_param = "intent" if kind.endswith("_intent") else "id"
        raise errors.no_such(
            _NOUNS.get(kind, kind),
            id,
            param=param or path_param,
            status=400 if param else 404,
            other_mode=other,
        )
