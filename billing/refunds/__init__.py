"""Refunds: an intent row that takes the credits, then the network, then the settlement.

`reach` says how far one can go, `preview` what it would do; `refund` does it. The credits are taken
with the intent, before the network is asked, so that nobody spends them meanwhile; a refund that
fails gives them back. `settle` is shared by the answer to our own call, by the webhook and by
`billing.reconcile`, in any order and any number of times; a refund made in the network's own
dashboard is taken in by it. Locks: connection, then payment; no network in between. Called by the
console and the API.
"""

from billing.refunds.asking import intend, refresh, refund, send, sync
from billing.refunds.previews import Preview, Reach, preview, reach
from billing.refunds.settling import fail, flag, settle, take_in

__all__ = [
    "Preview",
    "Reach",
    "fail",
    "flag",
    "intend",
    "preview",
    "reach",
    "refresh",
    "refund",
    "send",
    "settle",
    "sync",
    "take_in",
]
