"""What each operation takes and gives, by method and path; `generate` finds it here.

`/customers` and `/plans` are described by `/connections` and `/subscription_configs`, in the newer
client's words. Every `example` is run by the tests, with real ids in place of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from billing.models import Hold, Plan
from checkout.models import CheckoutSession
from lava.api.openapi.schemas import (
    AMOUNT_IN,
    BASIS,
    BUNDLE,
    CONNECTION,
    EVENT,
    EXPECTED,
    FLAG,
    INTERVAL,
    KIND,
    METADATA,
    METER,
    PAYER,
    PLAN,
    RATE_TYPE,
    ROLLOVER,
    ROUNDING,
    STRING,
    TIER_MODE,
    TIME,
    UNIT,
    WHOLE,
    WINDOW,
    Schema,
    choice,
    listed,
    maybe,
    obj,
    page,
    ref,
    text,
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path."""

    summary: str
    tag: str
    answer: Schema
    status: int = 200
    description: str = ""
    body: Schema | None = None
    example: dict[str, Any] | None = None
    query: dict[str, Schema] = field(default_factory=dict)
    headers: dict[str, Schema] = field(default_factory=dict)
    # Nobody is signed in, and no answer is kept for a key.
    anonymous: bool = False


_LIST = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
    "cursor": text(255),
}
_FILTERS = {
    "connection_id": text(64),
    "meter_id": text(64),
    "metadata_filters": text(4000, description='JSON, URL-encoded: `[["key","value"], ...]`'),
}
_CUSTOMER = {
    "name?": maybe({"type": "string", "maxLength": 160}),
    "email?": maybe({"type": "string", "maxLength": 254}),
    "phone?": maybe({"type": "string", "maxLength": 16, "description": "E.164, +14155550142"}),
    "reference_id?": maybe({"type": "string", "maxLength": 255}),
    "metadata?": maybe(METADATA),
}
_TIERS = listed(
    obj({"start": text(30), "rate": AMOUNT_IN, "flat_amount?": maybe(AMOUNT_IN), "kind?": KIND}),
    minItems=1,
    maxItems=50,
)
_METER = {
    "token_basis?": BASIS,
    "tier_mode?": TIER_MODE,
    "tier_window?": WINDOW,
    "base_cost_payer?": PAYER,
    "free_allowance?": text(30),
    "package_size?": text(30),
    "package_rounding?": ROUNDING,
}
_PLAN = {
    "included_credit?": AMOUNT_IN,
    "rollover_type?": ROLLOVER,
    "bundle_rollover_type?": ROLLOVER,
    "rollover_cap?": maybe(AMOUNT_IN),
    "when_depleted?": choice(*Plan.WhenDepleted.values),
    "overage_threshold?": AMOUNT_IN,
    "overage_cap?": maybe(AMOUNT_IN),
    "meter_ids?": listed(STRING, maxItems=200),
    "product_ids?": listed(STRING, maxItems=200),
}
_BUNDLES = listed(
    obj(
        {
            "credit_bundle_id?": text(),
            "name?": text(80),
            "cost?": AMOUNT_IN,
            "credit_amount?": AMOUNT_IN,
            "is_deleted?": FLAG,
        }
    ),
    maxItems=40,
)
_EXAMPLE = {
    "request_id": "job-1",
    "connection_id": CONNECTION,
    "meter_slug": "chat",
    "input_tokens": 1_200_000,
    "metadata": {"team": "podcasts"},
}
_CHARGE_WORDS = (
    "The id is the request's key for ever: the same id with the same body is answered again and "
    "not charged; with another body it is refused with 409. Usage that has run is always recorded; "
    "with `enforce` what the credits do not cover is refused with 402 and nothing is written."
)


def _list(name: str, tag: str, summary: str, **query: Schema) -> Operation:
    return Operation(summary=summary, tag=tag, answer=page(name), query={**query, **_LIST})


def _get(name: str, tag: str, summary: str) -> Operation:
    return Operation(summary=summary, tag=tag, answer=ref(name))


def _delete(tag: str, summary: str) -> Operation:
    return Operation(summary=summary, tag=tag, answer=ref("Deleted"))


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "requests"): Operation(
        summary="Report usage",
        tag="Usage",
        description=_CHARGE_WORDS,
        body=ref("Report"),
        example=_EXAMPLE,
        answer=ref("Request"),
    ),
    ("GET", "requests"): _list(
        "Request", "Usage", "List requests", **_FILTERS, start=TIME, end=TIME
    ),
    ("GET", "requests/{request_id}"): _get("Request", "Usage", "Retrieve a request"),
    ("POST", "requests/{request_id}/void"): Operation(
        summary="Take a request back",
        tag="Usage",
        description="Its credits return to the grants they came from, once, however often it is "
        "sent.",
        body=obj({"reason": text()}),
        example={"reason": "The job failed on our side"},
        answer=ref("VoidedRequest"),
    ),
    ("POST", "requests/batch"): Operation(
        summary="Report many requests",
        tag="Usage",
        description="One result each, in order. A line that is refused spoils no other. With "
        "`Prefer: return=minimal` a line that was charged is answered by `charged` and "
        "`total_remaining` alone, at a third of the server's work.",
        headers={"Prefer": {"type": "string", "maxLength": 255}},
        body=obj({"requests": listed(ref("Report"), minItems=1, maxItems=1000)}),
        example={"requests": [_EXAMPLE, _EXAMPLE | {"request_id": "job-2"}]},
        answer=obj({"results": listed(ref("BatchResult"))}),
    ),
    ("POST", "requests/estimate"): Operation(
        summary="Price a request without charging it",
        tag="Usage",
        body=obj(
            {
                "request_id?": text(),
                "connection_id?": text(64),
                "customer_id?": text(64),
                "meter_slug": text(64),
                "input_tokens?": WHOLE,
                "output_tokens?": WHOLE,
            }
        ),
        example={k: v for k, v in _EXAMPLE.items() if k != "request_id"},
        answer=ref("Estimate"),
    ),
    ("GET", "holds"): _list(
        "Hold",
        "Holds",
        "List holds",
        connection_id=text(64),
        status=choice(*Hold.State.values),
    ),
    ("POST", "holds"): Operation(
        summary="Set credits aside for work about to run",
        tag="Holds",
        description="An `amount`, or a `meter_slug` with the usage that is expected, priced as its "
        "charge would be now. What is held nothing else can spend. It is refused with 402 when it "
        "does not fit; a hold that is neither settled nor released expires.",
        body=obj(
            {
                "connection_id?": text(64),
                "customer_id?": text(64),
                "amount?": maybe(AMOUNT_IN),
                "expires_in_s?": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 86_400,
                    "default": 900,
                },
                "purpose?": {"type": "string", "maxLength": 255},
                "meter_slug?": maybe(text(64)),
                **EXPECTED,
            }
        ),
        example={
            "connection_id": CONNECTION,
            "amount": "2.50",
            "expires_in_s": 600,
            "purpose": "Render scene 7",
        },
        answer=ref("HoldWithBalance"),
        status=201,
    ),
    ("GET", "holds/{hold_id}"): _get("Hold", "Holds", "Retrieve a hold"),
    ("POST", "holds/{hold_id}/settle"): Operation(
        summary="Charge what the work really used",
        tag="Holds",
        description="A reported request without its connection; `request_id` is the hold's own id "
        "where none is sent. The charge and the end of the hold are one step: what the fee leaves "
        "of it is free again. Usage that has run is always recorded, also by a hold that has "
        "expired, or above what was held. The same body again is answered again.",
        body=ref("Settlement"),
        example={"meter_slug": "chat", "input_tokens": 400_000},
        answer=ref("SettledRequest"),
    ),
    ("POST", "holds/{hold_id}/release"): Operation(
        summary="Give a hold back unspent", tag="Holds", answer=ref("HoldWithBalance")
    ),
    ("GET", "usage"): Operation(
        summary="Usage by day",
        tag="Usage",
        description="The UTC offset of `start` sets the days.",
        query={"start": TIME, "end": TIME, **_FILTERS},
        answer=ref("Usage"),
    ),
    ("GET", "connections"): _list(
        "Connection", "Customers", "List connections", reference_id=text(), phone=text(17)
    ),
    ("POST", "connections"): Operation(
        summary="Make a connection for a customer",
        tag="Customers",
        body=obj(_CUSTOMER),
        example={"name": "Ana Ruiz", "email": "ana@shop.example", "reference_id": "user-7"},
        answer=ref("Connection"),
        status=201,
    ),
    ("GET", "connections/{connection_id}"): _get(
        "Connection", "Customers", "Retrieve a connection"
    ),
    ("PATCH", "connections/{connection_id}"): Operation(
        summary="Change what a connection says of its customer",
        tag="Customers",
        body=obj(_CUSTOMER),
        example={"metadata": {"tier": "gold"}},
        answer=ref("Connection"),
    ),
    ("DELETE", "connections/{connection_id}"): Operation(
        summary="End a connection", tag="Customers", answer=ref("Done")
    ),
    ("GET", "connections/{connection_id}/subscription"): _get(
        "ConnectionSubscription", "Customers", "A connection's subscription, or null"
    ),
    ("GET", "connections/{connection_id}/balance"): _get(
        "Balance", "Customers", "What a connection can spend"
    ),
    ("GET", "connections/{connection_id}/balance/explain"): Operation(
        summary="Prove a balance, line by line",
        tag="Customers",
        description="The ledger up to `at` (now, or any instant before), newest line first; under "
        "a usage line its request, the price it met, its slices and the grants it drew from.",
        answer=ref("Explanation"),
        query={"at": TIME, **_LIST},
    ),
    ("GET", "connections/{connection_id}/ledger"): _list(
        "LedgerEntry", "Customers", "A connection's ledger, newest line first"
    ),
    ("GET", "subscription_configs"): _list("SubscriptionConfig", "Plans", "List plans"),
    ("POST", "subscription_configs"): Operation(
        summary="Make a plan",
        tag="Plans",
        body=obj(
            {
                "name": text(80),
                "period_amount": AMOUNT_IN,
                "billing_interval": INTERVAL,
                **_PLAN,
                "credit_bundles?": _BUNDLES,
                "default_auto_top_up_bundle_index?": maybe(WHOLE),
            }
        ),
        example={
            "name": "Studio",
            "period_amount": "25.00",
            "included_credit": "25.00",
            "billing_interval": "month",
            "rollover_type": "full",
            "meter_ids": [METER],
            "credit_bundles": [{"name": "Pack", "cost": "10.00", "credit_amount": "10.00"}],
        },
        answer=ref("SubscriptionConfig"),
        status=201,
    ),
    ("GET", "subscription_configs/{plan_id}"): _get(
        "SubscriptionConfig", "Plans", "Retrieve a plan"
    ),
    ("PATCH", "subscription_configs/{plan_id}"): Operation(
        summary="Change a plan",
        tag="Plans",
        description="Price and interval of a plan that somebody has subscribed to stay: 409.",
        body=obj(
            {
                "name?": text(80),
                "period_amount?": AMOUNT_IN,
                "billing_interval?": INTERVAL,
                **_PLAN,
                "credit_bundles?": _BUNDLES,
                "default_auto_top_up_bundle_id?": maybe(STRING),
            }
        ),
        example={
            "credit_bundles": [
                {
                    "credit_bundle_id": BUNDLE,
                    "name": "Pack",
                    "cost": "12.00",
                    "credit_amount": "12.00",
                }
            ]
        },
        answer=ref("SubscriptionConfig"),
    ),
    ("DELETE", "subscription_configs/{plan_id}"): _delete("Plans", "Archive a plan"),
    ("GET", "credit_bundles"): _list(
        "CreditBundle", "Plans", "List credit bundles", subscription_config_id=text(64)
    ),
    ("GET", "credit_bundles/{bundle_id}"): _get(
        "CreditBundle", "Plans", "Retrieve a credit bundle"
    ),
    ("GET", "meters"): _list("Meter", "Plans", "List meters"),
    ("POST", "meters"): Operation(
        summary="Make a meter",
        tag="Plans",
        body=obj(
            {
                "name": text(80),
                "meter_slug?": text(64),
                "rate_type": RATE_TYPE,
                "tier_type": UNIT,
                "tiers": _TIERS,
                **_METER,
            }
        ),
        example={
            "name": "Images",
            "rate_type": "fixed",
            "tier_type": "requests",
            "tiers": [{"start": "0", "rate": "0.05"}, {"start": "1000", "rate": "0.04"}],
        },
        answer=ref("Meter"),
        status=201,
    ),
    ("GET", "meters/{meter_id}"): _get("Meter", "Plans", "Retrieve a meter"),
    ("PATCH", "meters/{meter_id}"): Operation(
        summary="Change a meter",
        tag="Plans",
        description="Other rates are the next version of its price, from this instant on.",
        body=obj(
            {
                "name?": text(80),
                "tiers?": _TIERS,
                "tier_type?": UNIT,
                "rate_type?": RATE_TYPE,
                **_METER,
            }
        ),
        example={"tiers": [{"start": "0", "rate": "4"}]},
        answer=ref("Meter"),
    ),
    ("DELETE", "meters/{meter_id}"): _delete("Plans", "Delete a meter that no plan has"),
    ("GET", "subscriptions"): _list(
        "Subscription",
        "Customers",
        "List subscriptions",
        connection_id=text(64),
        status=choice("active", "cancelled", "all"),
    ),
    ("POST", "subscriptions"): Operation(
        summary="Give a customer a free plan",
        tag="Customers",
        body=obj(
            {
                "connection_id?": text(),
                "customer_id?": text(),
                "subscription_config_id?": text(),
                "plan_id?": text(),
            }
        ),
        example={"connection_id": CONNECTION, "subscription_config_id": PLAN},
        answer=obj({"subscription": ref("Subscription")}),
        status=201,
    ),
    ("GET", "subscriptions/{subscription_id}"): _get(
        "Subscription", "Customers", "Retrieve a subscription"
    ),
    ("PATCH", "subscriptions/{subscription_id}"): Operation(
        summary="Change a subscription",
        tag="Customers",
        body=obj({"auto_top_up_bundle_id?": maybe(STRING)}),
        example={"auto_top_up_bundle_id": None},
        answer=ref("Done"),
    ),
    ("DELETE", "subscriptions/{subscription_id}"): Operation(
        summary="Cancel at the end of the cycle", tag="Customers", answer=ref("Done")
    ),
    ("POST", "checkout_sessions"): Operation(
        summary="Make a checkout session",
        tag="Checkout",
        body=obj(
            {
                "checkout_mode": choice(*CheckoutSession.Mode.values),
                "origin_url": text(),
                "return_url?": maybe(text(2000)),
                "connection_id?": maybe(text()),
                "customer_id?": maybe(text()),
                "subscription_config_id?": maybe(text()),
                "plan_id?": maybe(text()),
                "credit_bundle_id?": maybe(text()),
            }
        ),
        example={
            "checkout_mode": "subscription",
            "origin_url": "https://app.example",
            "subscription_config_id": PLAN,
        },
        answer=ref("CheckoutSession"),
        status=201,
    ),
    ("GET", "checkout_sessions/{session_id}"): _get(
        "CheckoutSession", "Checkout", "Retrieve a checkout session"
    ),
    ("GET", "webhooks"): _list("Webhook", "Webhooks", "List webhooks"),
    ("POST", "webhooks"): Operation(
        summary="Make a webhook",
        tag="Webhooks",
        description="The secret is shown here and when it is rotated, and never again.",
        body=obj({"name": text(80), "url": text(2000), "events?": listed(EVENT)}),
        example={"name": "Backend", "url": "https://hooks.example.com/lava"},
        answer=ref("WebhookWithSecret"),
        status=201,
    ),
    ("GET", "webhooks/{webhook_id}"): _get("Webhook", "Webhooks", "Retrieve a webhook"),
    ("PATCH", "webhooks/{webhook_id}"): Operation(
        summary="Change, pause or resume a webhook",
        tag="Webhooks",
        body=obj(
            {
                "name?": text(80),
                "url?": text(2000),
                "events?": listed(EVENT),
                "status?": choice("active", "paused"),
            }
        ),
        example={"events": ["payment.succeeded", "payment.failed"]},
        answer=ref("Webhook"),
    ),
    ("DELETE", "webhooks/{webhook_id}"): _delete("Webhooks", "Delete a webhook"),
    ("POST", "webhooks/{webhook_id}/rotate"): Operation(
        summary="Make a new secret; the old one signs too for 24 hours",
        tag="Webhooks",
        answer=ref("WebhookWithSecret"),
    ),
    ("GET", "webhooks/{webhook_id}/deliveries"): _list(
        "Delivery",
        "Webhooks",
        "What was sent, with every attempt",
        status=choice("pending", "delivered", "failed"),
    ),
    ("POST", "webhooks/{webhook_id}/deliveries/{delivery_id}/resend"): Operation(
        summary="Send again", tag="Webhooks", answer=ref("Delivery")
    ),
    ("GET", "secret_keys"): _list("SecretKey", "Keys", "List keys"),
    ("POST", "secret_keys"): Operation(
        summary="Make a key; it is shown once",
        tag="Keys",
        body=obj({"name": text(80)}),
        example={"name": "CI"},
        answer=ref("SecretKeyWithSecret"),
        status=201,
    ),
    ("DELETE", "secret_keys/{key_id}"): _delete("Keys", "Revoke a key at once"),
    ("GET", "forward_tokens"): _list("ForwardToken", "Gateway", "List forward tokens"),
    ("POST", "forward_tokens"): Operation(
        summary="Make a forward token; its text is shown once",
        tag="Gateway",
        description="It goes in the place of a provider's key. With a connection and a meter the "
        "customer pays; with a meter alone the call is counted; with neither it is your own. "
        "It may be limited by money, calls, models, providers and time, and stopped on its own.",
        body=ref("ForwardTokenToMake"),
        example={
            "name": "Support bot",
            "connection_id": CONNECTION,
            "meter_slug": "chat",
            "allowed_models": ["gpt-4o-mini"],
            "spend_limit": {"amount": "5.00", "cycle": "monthly"},
            "rate_limit": {"rpm": 60},
        },
        answer=ref("ForwardTokenWithText"),
        status=201,
    ),
    ("GET", "forward_tokens/{token_id}"): _get(
        "ForwardToken", "Gateway", "Retrieve a forward token with what it spent"
    ),
    ("PATCH", "forward_tokens/{token_id}"): Operation(
        summary="Rename, pause or limit a forward token, from its next call on",
        tag="Gateway",
        description="What is left out stays; null is no limit. Who pays does not change.",
        body=ref("ForwardTokenToChange"),
        example={"status": "paused", "spend_limit": {"amount": "10.00", "cycle": "monthly"}},
        answer=ref("ForwardToken"),
    ),
    ("DELETE", "forward_tokens/{token_id}"): _delete("Gateway", "Revoke a forward token at once"),
    ("POST", "forward_tokens/{token_id}/rotate"): Operation(
        summary="Give a forward token another text; the old one stops at once",
        tag="Gateway",
        answer=ref("ForwardTokenWithText"),
    ),
    ("GET", "spend_keys"): _list("SpendKey", "Gateway", "List spend keys"),
    ("POST", "spend_keys"): Operation(
        summary="Make a spend key; it is shown once",
        tag="Gateway",
        description="The newest client's word for a forward token; the same table.",
        body=ref("SpendKeyToMake"),
        example={
            "name": "CI",
            "allowed_providers": ["openai"],
            "request_limit": {"count": 1000, "cycle": "daily"},
        },
        answer=ref("SpendKeyWithText"),
        status=201,
    ),
    ("GET", "spend_keys/{token_id}"): _get("SpendKey", "Gateway", "Retrieve a spend key"),
    ("PATCH", "spend_keys/{token_id}"): Operation(
        summary="Rename, pause or limit a spend key, from its next call on",
        tag="Gateway",
        body=ref("ForwardTokenToChange"),
        example={"name": "CI, nightly"},
        answer=ref("SpendKey"),
    ),
    ("DELETE", "spend_keys/{token_id}"): Operation(
        summary="Revoke a spend key at once", tag="Gateway", answer=obj({"success": FLAG})
    ),
    ("POST", "spend_keys/{token_id}/rotate"): Operation(
        summary="Give a spend key another text; the old one stops at once",
        tag="Gateway",
        answer=ref("SpendKeyWithText"),
    ),
    ("POST", "auth/callback"): Operation(
        summary="Fetch the key that was offered to a terminal, once",
        tag="Keys",
        body=obj({"code": text()}),
        answer=ref("Credentials"),
        anonymous=True,
    ),
    ("GET", "models"): Operation(
        summary="Models that can be routed, with prices",
        tag="Gateway",
        query={"provider": text(64)},
        answer=obj({"object": {"const": "list"}, "data": listed(ref("Model"))}),
    ),
    ("GET", "test_helpers/clock"): Operation(
        summary="The sandbox's clock", tag="Test helpers", answer=obj({"now": TIME})
    ),
    ("POST", "test_helpers/clock/advance"): Operation(
        summary="Move the sandbox's clock and run what falls due",
        tag="Test helpers",
        body=obj({"to?": TIME, "seconds?": WHOLE, "to_next_renewal?": FLAG, "run?": FLAG}),
        example={"seconds": 3600},
        answer=obj({"was": TIME, "now": TIME}),
    ),
    ("GET", "test_helpers/outbox"): _list(
        "OutboxMessage", "Test helpers", "Texts and mails that would have been sent", to=text(254)
    ),
    ("POST", "test_helpers/checkout_sessions/{session_id}/complete"): Operation(
        summary="Complete a checkout with a test card",
        tag="Test helpers",
        body=obj({"phone?": text(32), "card?": text(24)}),
        answer=ref("CheckoutSession"),
    ),
}
