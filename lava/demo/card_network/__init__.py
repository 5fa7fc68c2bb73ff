"""The local card network: an HTTP server of its own that speaks Stripe's API on loopback.

Owns its state file and nothing else. It imports neither Django nor the product, and nobody imports
it but `manage.py up` and tests, which start it as a process (`python -m lava.demo.card_network`, or
the handle in `process.py`) and then talk HTTP: the unchanged `stripe.StripeClient` with
`base_addresses={"api": url}`, and the checkout page through `GET /v3/` (or `/stripe.js`).

Keys. Any `sk_test_...` / `pk_test_...` opens the test mode and any `sk_live_...` / `pk_live_...`
the live mode; the two modes share no data. By convention the product uses `sk_test_local`,
`pk_test_local`, `sk_live_local`, `pk_live_local`. Webhook secrets default to `whsec_test_local` and
`whsec_live_local`. Keys of other names (`sk_test_other`, `pk_test_other`) open an account of their
own, and `Stripe-Account: acct_...` one that is connected: accounts share no objects either.

Modelled: customers, payment methods (cards), setup intents, payment intents, charges, refunds,
disputes, events, `expand`, list filters and pages, idempotency (24 h), test cards (`cards.py`),
off-session rules, 3-D Secure (always as `use_stripe_sdk`), signed events with retries. A parameter
or endpoint that Stripe has and this network does not model is refused, never ignored in silence; so
is `payment_method_types`, which Stripe took away with API 2026-09-30.endive (older versions by the
`Stripe-Version` header still have it).

Control endpoints (JSON in and out; loopback and no browser: a request with an `Origin` is refused).
Everything set here survives a restart; `reset` clears it, except for the webhook's address.

GET  /_control/health           {"ok": true, "now": seconds}
POST /_control/reset            {"mode"?: "test"|"live"}: forget all data of one mode; of both, and
                                faults, clock and webhook behaviour, without `mode`
GET  /_control/journal          every API call received, oldest first; ?mode= ?method= ?path= (glob)
                                ?idempotency_key= ?after=<id> ?limit= (1000) -> {"data": [{id, at,
                                mode, method, path, idempotency_key, params, status, replayed,
                                fault, request_id}]} (`status` null: never answered; card numbers
                                and codes are masked)
POST /_control/faults           {"action", "method"?, "path"? (glob, "*"), "mode"?, "times"? (1),
                                "status"?, "delay_ms"?, "stored"?}: strikes the next matching calls
   action `error`               answer `status` (500) without doing it; `stored`: remembered under
                                the key, as Stripe remembers its own 500s
          `error_after`         do it, then answer `status` (502)
          `drop`                do it, then close the line without an answer
          `drop_before`         close the line without doing it
          `in_use`              409 idempotency_key_in_use without doing it
          `delay`               wait `delay_ms`, with the key in use, then do it
          `delay_after`         do it, wait `delay_ms`, answer
GET  /_control/faults           what is still armed;  DELETE /_control/faults  disarms all
GET  /_control/clock            {"now", "offset_s"}
POST /_control/clock            {"offset_s": n} or {"advance_s": n}: shifts `created`, card expiry
                                and the 24 h of idempotency; webhooks are signed on the real clock
GET  /_control/webhooks         settings, counts by state, and the last deliveries
POST /_control/webhooks         {"url"?, "mode"?: "send"|"hold"|"drop", "copies"? (1), "reverse"?:
                                bool, "delay_ms"?}; going back to `send` releases what was held
POST /_control/webhooks/resend  {"event": "evt_...", "times"?: 1}
POST /_control/cards            {"payment_method": "pm_...", "behave_as": "<test card number>"}: a
                                saved card that from now on declines, asks for 3-D Secure, or works
POST /_control/authenticate     {"intent": "pi_...|seti_...", "approve"?: true}: what the cardholder
                                would press in the 3-D Secure dialog
POST /_control/refunds          {"next": "pending"}: the next refund waits at the bank; or
                                {"refund", "status": "succeeded" | "failed"}: it arrives, or comes
                                back
POST /_control/disputes/open    {"charge" | "payment_intent", "amount"?, "reason"? ("fraudulent")}
POST /_control/disputes/close   {"dispute", "status"? ("lost") | "won"}
"""
