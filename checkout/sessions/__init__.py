"""The state machine of a checkout: every step a customer takes, and what each one refuses.

Called by `checkout.views` (people), `checkout.api` (backends) and `lava.webhooks` (the card
network). Each step locks the session's row, checks where it stands and the nonce of its form, and
moves on in one transaction; the network is asked with no lock held. Lock order: session, then what
billing's verbs lock. Raises `billing.errors`: Gone for what is over, Conflict for a step skipped or
a page that is out of date.
"""

from checkout.sessions.paying import (
    Outcome,
    begin_free,
    begin_payment,
    complete_for_payment,
    complete_for_setup,
    expire,
    finish_payment,
    form_nonce,
)
from checkout.sessions.steps import (
    by_secret,
    choose_bundle,
    create,
    create_confirmed,
    restart,
    send_code,
    verify_code,
)
from checkout.sessions.terms import Change, Means, Standing, change, means, standing
from checkout.sessions.testing import complete_with_test_card

__all__ = [
    "Change",
    "Means",
    "Outcome",
    "Standing",
    "begin_free",
    "begin_payment",
    "by_secret",
    "change",
    "choose_bundle",
    "complete_for_payment",
    "complete_for_setup",
    "complete_with_test_card",
    "create",
    "create_confirmed",
    "expire",
    "finish_payment",
    "form_nonce",
    "means",
    "restart",
    "send_code",
    "standing",
    "verify_code",
]
