"""Settlement: what a payment's answer does to the books, exactly once.

`apply` is called with what the card network says, by the answer to our own call and by the webhook
alike, in any order and any number of times. Locks: connection, then payment, then the merchant's
receipt counter; no network in between.
"""

from billing.settlement.doors import apply, cancel, fail, flag, lock
from billing.settlement.saved import next_receipt, save_card
from billing.settlement.unpaid import RETRY_DAYS

__all__ = [
    "RETRY_DAYS",
    "apply",
    "cancel",
    "fail",
    "flag",
    "lock",
    "next_receipt",
    "save_card",
]
