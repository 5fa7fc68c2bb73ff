"""The shapes of what goes in and comes out, once each."""

from __future__ import annotations

from typing import Any

from billing import events
from billing.api import vocabulary
from billing.models import Hold, Plan, Subscription
from checkout.models import CheckoutSession
from meters.gateway.models import ForwardToken
from meters.gateway.spendkeys import SHAPES
from meters.models import MeterPrice

Schema = dict[str, Any]

# The ids of the examples; the tests put real ones in their place.
CONNECTION = "con_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
PLAN = "sc_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
BUNDLE = "cb_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
METER = "prd_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
SUBSCRIPTION = "sub_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
SESSION = "cs_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
WEBHOOK = "whk_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
DELIVERY = "dlv_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
SECRET_KEY = "key_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"
HOLD = "hld_test_01JDAFW9ZVFM6A4SHQ6GPC0T4E"


def obj(fields: dict[str, Schema], **more: Any) -> Schema:
    """An object; a name that ends with `?` may be absent."""
    return {
        "type": "object",
        "properties": {name.rstrip("?"): schema for name, schema in fields.items()},
        "required": [name for name in fields if not name.endswith("?")],
    } | more


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def listed(schema: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": schema} | more


def maybe(schema: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def choice(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def text(most: int = 255, **more: Any) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": most} | more


def page(name: str) -> Schema:
    """A list, newest first, with the cursor of the next page where there is one."""
    return obj({"data": listed(ref(name)), "has_more": FLAG, "next_cursor?": STRING})


def newer(schema: Any) -> Any:
    """A shape in the newer client's words (`billing.api.vocabulary`)."""
    if isinstance(schema, list):
        return [newer(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    said = {key: newer(value) for key, value in schema.items()}
    if "properties" in said:
        said["properties"] = {
            vocabulary.NEWER.get(name, name): shape for name, shape in said["properties"].items()
        }
        said["required"] = [vocabulary.NEWER.get(name, name) for name in said.get("required", [])]
    return said


STRING: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
TIME: Schema = {"type": "string", "format": "date-time"}
AMOUNT: Schema = {
    "type": "string",
    "pattern": r"^-?\d{1,20}\.\d{10}$",
    "description": "Money: a string with 10 decimals.",
}
AMOUNT_IN: Schema = {
    "type": "string",
    "pattern": r"^[0-9]{1,12}(\.[0-9]{1,10})?$",
    "description": "Money: a string of at most 12 digits and 10 decimals.",
}
COUNT_IN: Schema = {"type": "integer", "minimum": 0, "maximum": 10**12 - 1}
COUNT_FROM_1: Schema = {"type": "integer", "minimum": 1, "maximum": 10**9}
CYCLE = choice(*ForwardToken.Cycle.values)
SECONDS_IN: Schema = {"type": "number", "minimum": 0, "exclusiveMaximum": 10**9}
METADATA: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": 255},
    "propertyNames": {"pattern": "^[A-Za-z0-9_]{1,255}$"},
    "maxProperties": 100,
}
INTERVAL = choice(*Plan.Interval.values)
ROLLOVER = choice(*Plan.Rollover.values)
PAYER = choice(*MeterPrice.Payer.values)
UNIT = choice(*MeterPrice.Unit.values)
RATE_TYPE = choice(*MeterPrice.RateType.values)
BASIS = choice(*MeterPrice.TokenBasis.values)
WINDOW = choice(*MeterPrice.TierWindow.values)
TIER_MODE = choice(*MeterPrice.TierMode.values)
ROUNDING = choice(*MeterPrice.PackageRounding.values)
EVENT = choice(*events.NAMES)

_CONTACT = obj(dict.fromkeys(("phone", "email", "first_name", "last_name"), STRING))
_SUMMARY = obj(
    {
        "subscription_id": STRING,
        "subscription_config_id": STRING,
        "name": STRING,
        "status": choice("active", "cancelled"),
    }
)
_CREDITS = dict.fromkeys(("total_remaining", "cycle_remaining", "bundle_remaining"), AMOUNT)
_BALANCE = {**_CREDITS, "overage_due": AMOUNT}
# What open holds have set aside stands beside it.
_HELD = {**_BALANCE, "held": AMOUNT, "available": AMOUNT}
_TERMS = {
    "name": STRING,
    "period_amount": AMOUNT,
    "included_credit": AMOUNT,
    "billing_interval": INTERVAL,
    "rollover_type": ROLLOVER,
    "bundle_rollover_type": ROLLOVER,
}
_CONNECTION = {
    "connection_id": STRING,
    "has_lava_credit_balance": FLAG,
    "status": STRING,
    "customer": _CONTACT,
    "subscription": maybe(_SUMMARY),
    "reference_id": maybe(STRING),
    "metadata": METADATA,
    "created_at": TIME,
}
_SUBSCRIPTION = {
    "subscription_id": STRING,
    "subscription_config_id": STRING,
    "connection_id": STRING,
    "status": choice("active", "cancelled"),
    "is_past_due": FLAG,
    "started_at": TIME,
    "cancelled_at": maybe(TIME),
    "cycle_start_at": TIME,
    "cycle_end_at": TIME,
    "plan": obj(_TERMS),
    "credits": obj(_CREDITS),
    "pending_change": maybe(
        obj(
            {
                "type": choice(*Subscription.PendingChange.values),
                "effective_at": maybe(TIME),
            }
        )
    ),
    "auto_top_up_bundle_id": maybe(STRING),
    "customer": _CONTACT,
}
_BUNDLE = {
    "credit_bundle_id": STRING,
    "name": STRING,
    "cost": AMOUNT,
    "credit_amount": AMOUNT,
}
_PLAN = {
    "subscription_config_id": STRING,
    "merchant_id": STRING,
    **_TERMS,
    "currency": STRING,
    "rollover_cap": maybe(AMOUNT),
    "when_depleted": choice(*Plan.WhenDepleted.values),
    "overage_threshold": AMOUNT,
    "overage_cap": maybe(AMOUNT),
    "default_auto_top_up_bundle_id": maybe(STRING),
    "linked_meters": listed(obj({"meter_id": STRING, "name": STRING})),
    "credit_bundles": listed(obj(_BUNDLE)),
    "created_at": TIME,
}
KIND = choice("input", "output", "cache_read", "cache_write")
_TIER = obj({"start": NUMBER, "rate": AMOUNT, "type": UNIT, "flat_amount?": AMOUNT, "kind?": KIND})
_SLICE = obj(
    {"tier": _TIER, "tokens": WHOLE, "characters": WHOLE, "seconds": NUMBER, "cost": AMOUNT}
)
_USED = {
    "input_tokens": WHOLE,
    "output_tokens": WHOLE,
    "total_tokens": WHOLE,
    "cache_read_tokens": WHOLE,
    "cache_write_tokens": WHOLE,
    "input_characters": WHOLE,
    "output_characters": WHOLE,
    "total_characters": WHOLE,
    "input_seconds": NUMBER,
    "output_seconds": NUMBER,
    "total_seconds": NUMBER,
    "input_cost": AMOUNT,
    "output_cost": AMOUNT,
    "total_cost": AMOUNT,
    "payer": PAYER,
}
_PRICED = {
    "connection_id": STRING,
    "customer_id": STRING,
    "meter_id": STRING,
    "model": STRING,
    "model_usage": obj(_USED),
    "fee": obj(
        {
            "amount": AMOUNT,
            "rate_type": RATE_TYPE,
            "token_basis": BASIS,
            "breakdown": listed(_SLICE),
        }
    ),
    "cost": AMOUNT,
    "charge": obj({"amount": AMOUNT, "rate_type": RATE_TYPE, "breakdown": listed(_SLICE)}),
    "total_request_cost": AMOUNT,
    "total_wallet_cost": AMOUNT,
    "total_merchant_cost": AMOUNT,
}
_REQUEST = _PRICED | {
    "request_id": STRING,
    "status": choice("pending", "completed", "error", "voided"),
    "provider": STRING,
    "provider_key_type": STRING,
    "endpoint": STRING,
    "service_charge": obj({"amount": AMOUNT, "payer": PAYER}),
    "balance": obj(_BALANCE),
    "late": FLAG,
    "metadata": METADATA,
    "timestamp": TIME,
    "created_at": TIME,
}
_TOTALS = {
    "total_requests": WHOLE,
    "total_usage_tokens": WHOLE,
    "total_usage_characters": WHOLE,
    "total_usage_seconds": NUMBER,
    **{
        f"total_{name}": AMOUNT
        for name in (
            "usage_cost",
            "fee_amount",
            "service_charge_amount",
            "request_cost",
            "wallet_cost",
            "merchant_cost",
            "cost",
            "charge",
            "gross_volume",
            "net_volume",
        )
    },
}
_ERROR = {
    "message": STRING,
    "code": STRING,
    "status": WHOLE,
    "param?": STRING,
    "request_id": STRING,
}
_WEBHOOK = {
    "webhook_id": STRING,
    "name": STRING,
    "url": STRING,
    "events": listed(EVENT),
    "status": choice("active", "paused"),
    "failing_since": maybe(TIME),
    "created_at": TIME,
}
_KEY = {
    "secret_key_id": STRING,
    "name": STRING,
    "secret_key_hint": STRING,
    "created_at": TIME,
}
_TOKEN_IN = {
    "status?": choice(*ForwardToken.Status.values),
    "request_shape?": choice(*SHAPES),
    "allowed_models?": maybe(listed(text(120), maxItems=200)),
    "allowed_providers?": maybe(listed(text(40), maxItems=200)),
    "spend_limit?": maybe(obj({"amount": AMOUNT_IN, "cycle": CYCLE})),
    "request_limit?": maybe(obj({"count": COUNT_FROM_1, "cycle": CYCLE})),
    "rate_limit?": maybe(obj({"rpm": COUNT_FROM_1, "burst?": maybe(COUNT_FROM_1)})),
    "expires_at?": maybe(TIME),
}
_TOKEN = {
    "name": STRING,
    "status": choice(*ForwardToken.Status.values),
    "request_shape": choice(*SHAPES),
    "allowed_models": maybe(listed(STRING)),
    "allowed_providers": maybe(listed(STRING)),
    "spend_limit": maybe(obj({"amount": AMOUNT, "cycle": CYCLE})),
    "current_spend": AMOUNT,
    "total_spend": AMOUNT,
    "request_limit": maybe(obj({"count": WHOLE, "cycle": CYCLE})),
    "current_requests": WHOLE,
    "total_requests": WHOLE,
    "rate_limit": maybe(obj({"rpm": WHOLE, "burst": maybe(WHOLE)})),
    "expires_at": maybe(TIME),
    "last_used_at": maybe(TIME),
    "created_at": TIME,
}
_FORWARD_TOKEN = {
    "forward_token_id": STRING,
    "token_hint": STRING,
    "connection_id": maybe(STRING),
    "customer_id": maybe(STRING),
    "meter_id": maybe(STRING),
    "meter_slug": maybe(STRING),
    **_TOKEN,
}
_SPEND_KEY = {"spend_key_id": STRING, "key_preview": STRING, "wallet_id": STRING, **_TOKEN}
_REPORT = {
    "request_id": text(example="job-1"),
    "connection_id?": text(64),
    "customer_id?": text(64),
    "meter_slug": text(64),
    "input_tokens?": COUNT_IN,
    "output_tokens?": COUNT_IN,
    "cache_read_tokens?": COUNT_IN,
    "cache_write_tokens?": COUNT_IN,
    "input_characters?": COUNT_IN,
    "output_characters?": COUNT_IN,
    "input_seconds?": SECONDS_IN,
    "output_seconds?": SECONDS_IN,
    "provider_cost?": AMOUNT_IN,
    "model?": text(120),
    "metadata?": METADATA,
    "timestamp?": TIME,
    "enforce?": FLAG,
}
# What a report says beside its ids.
EXPECTED = {
    name: _REPORT[name]
    for name in _REPORT
    if name not in ("request_id", "connection_id?", "customer_id?", "meter_slug", "enforce?")
}

_ENTRY = {
    "seq": WHOLE,
    "kind": STRING,
    "amount": AMOUNT,
    "balance_after": AMOUNT,
    "grant_id": maybe(STRING),
    "payment_id": maybe(STRING),
    "reason": STRING,
    "occurred_at": TIME,
}
_GRANT = {
    "grant_id": STRING,
    "source": STRING,
    "amount": AMOUNT,
    "effective_at": TIME,
    "expires_at": maybe(TIME),
}
_PROOF = {
    "request_id": STRING,
    "status": STRING,
    "meter_id": STRING,
    "meter_slug": STRING,
    "model": STRING,
    "timestamp": TIME,
    "late": FLAG,
    "quantity": NUMBER,
    "position_before": NUMBER,
    "price_version": WHOLE,
    "rate_type": RATE_TYPE,
    "unit": UNIT,
    "fee": AMOUNT,
    "provider_cost": AMOUNT,
    "charged": AMOUNT,
    "slices": listed(obj({"tier": WHOLE, "quantity": NUMBER, "rate": AMOUNT, "amount": AMOUNT})),
    "draws": listed(obj({"grant_id": maybe(STRING), "amount": AMOUNT})),
}


_HOLD = {
    "hold_id": STRING,
    "connection_id": STRING,
    "amount": AMOUNT,
    "status": choice(*Hold.State.values),
    "purpose": STRING,
    "request_id": maybe(STRING),
    "charged": maybe(AMOUNT),
    "expires_at": TIME,
    "created_at": TIME,
    "ended_at": maybe(TIME),
}
_EXPLANATION = {
    "connection_id": STRING,
    "currency": STRING,
    "at": TIME,
    "balance": obj({**_HELD, "ended": AMOUNT}),
    "grants": listed(obj({**_GRANT, "remaining": AMOUNT, "ended": FLAG})),
    "data": listed(obj({**_ENTRY, "actor": STRING, "request": maybe(obj(_PROOF))})),
    "has_more": FLAG,
    "next_cursor?": STRING,
}


def _both(fields: dict[str, Schema]) -> dict[str, Schema]:
    """The fields with the newer client's names beside: paths that serve both clients."""
    found = dict(fields)
    for older, name in vocabulary.NEWER.items():
        for mark in ("", "?"):
            if older + mark in fields:
                found[name + mark] = fields[older + mark]
    return found


_CUSTOMER = {
    "contact" if name == "customer" else name: shape for name, shape in _CONNECTION.items()
}

SCHEMAS: dict[str, Schema] = {
    "Error": obj({"error": obj(_ERROR)}),
    "Done": obj({"success": {"const": True}}),
    "Deleted": obj({"id": STRING, "deleted": {"const": True}}),
    "Connection": obj(_CONNECTION),
    "Customer": newer(obj(_CUSTOMER)),
    "Balance": obj({"connection_id": STRING, "currency": STRING, **_HELD}),
    "CustomerBalance": newer(obj({"connection_id": STRING, "currency": STRING, **_HELD})),
    "LedgerEntry": obj(_ENTRY),
    "Explanation": obj(_EXPLANATION),
    "CustomerExplanation": newer(obj(_EXPLANATION)),
    "Subscription": obj(_both(_SUBSCRIPTION)),
    "ConnectionSubscription": obj({"subscription": maybe(obj(_SUBSCRIPTION))}),
    "CustomerSubscription": newer(obj({"subscription": maybe(obj(_SUBSCRIPTION))})),
    "SubscriptionConfig": obj(_PLAN),
    "Plan": newer(obj(_PLAN)),
    "CreditBundle": obj(_both({**_BUNDLE, "subscription_config_id": STRING, "created_at": TIME})),
    "Meter": obj(
        {
            "meter_id": STRING,
            "meter_slug": STRING,
            "name": STRING,
            "rate_type": RATE_TYPE,
            "token_basis": BASIS,
            "tier_mode": TIER_MODE,
            "tier_window": WINDOW,
            "base_cost_payer": PAYER,
            "service_charge_payer": PAYER,
            "tiers": listed(_TIER),
            "free_allowance": NUMBER,
            "package_size": NUMBER,
            "package_rounding": ROUNDING,
            "price_version": WHOLE,
            "created_at": TIME,
        }
    ),
    "Request": obj(_REQUEST),
    "Report": obj(_REPORT),
    "Settlement": obj(
        {"request_id?": text(), "connection_id?": text(64), "customer_id?": text(64)}
        | {"meter_slug": text(64)}
        | EXPECTED
    ),
    "Hold": obj(_both(_HOLD)),
    "HoldWithBalance": obj(_both(_HOLD) | {"balance": obj(_HELD)}),
    "SettledRequest": obj(_REQUEST | {"hold": obj(_both(_HOLD))}),
    "VoidedRequest": obj(
        _REQUEST
        | {
            "void": obj(
                {
                    "void_id": STRING,
                    "reason": STRING,
                    "balance": obj(_BALANCE),
                    "created_at": TIME,
                }
            )
        }
    ),
    "Estimate": obj(
        _PRICED | {"currency": STRING, "covered": FLAG, "balance_after": obj(_BALANCE)}
    ),
    "BatchResult": obj(
        {
            "status": WHOLE,
            "request_id": maybe(STRING),
            "body?": ref("Request"),
            "charged?": AMOUNT,
            "total_remaining?": AMOUNT,
            "error?": obj({name: shape for name, shape in _ERROR.items() if name != "request_id"}),
        }
    ),
    "Usage": obj(
        {
            "items": listed(
                obj(
                    {
                        "date": {"type": "string", "format": "date"},
                        "start": TIME,
                        "end": TIME,
                        **_TOTALS,
                    }
                )
            ),
            "totals": obj(_TOTALS),
        }
    ),
    "CheckoutSession": obj(
        _both(
            {
                "checkout_session_id": STRING,
                "checkout_session_token": STRING,
                "checkout_mode": choice(*CheckoutSession.Mode.values),
                "origin_url": STRING,
                "status": choice("open", "completed", "expired"),
                "url": STRING,
                "connection_id?": STRING,
                "subscription_config_id?": STRING,
                "credit_bundle_id?": STRING,
                "return_url?": STRING,
                "created_at": TIME,
                "expires_at": TIME,
                "completed_at?": TIME,
            }
        )
    ),
    "Webhook": obj(_WEBHOOK),
    "WebhookWithSecret": obj({**_WEBHOOK, "webhook_secret": STRING}),
    "Delivery": obj(
        {
            "delivery_id": STRING,
            "event_id": STRING,
            "event": EVENT,
            "sequence": WHOLE,
            "status": choice("pending", "delivered", "failed"),
            "next_attempt_at": maybe(TIME),
            "delivered_at": maybe(TIME),
            "body": STRING,
            "attempts": listed(
                obj(
                    {
                        "number": WHOLE,
                        "status": maybe(WHOLE),
                        "error": maybe(STRING),
                        "answer": STRING,
                        "duration_ms": WHOLE,
                        "at": TIME,
                    }
                )
            ),
            "created_at": TIME,
        }
    ),
    "SecretKey": obj(_KEY),
    "SecretKeyWithSecret": obj({**_KEY, "secret_key": STRING}),
    "ForwardTokenToMake": obj(
        {
            "name": text(80),
            "connection_id?": maybe(text(64)),
            "customer_id?": maybe(text(64)),
            "meter_slug?": maybe(text(64)),
            **_TOKEN_IN,
        }
    ),
    "ForwardTokenToChange": obj({"name?": text(80), **_TOKEN_IN}),
    "ForwardToken": obj(_FORWARD_TOKEN),
    "ForwardTokenWithText": obj({**_FORWARD_TOKEN, "forward_token": STRING}),
    "SpendKeyToMake": obj({"name": text(80), **_TOKEN_IN}),
    "SpendKey": obj(_SPEND_KEY),
    "SpendKeyWithText": obj({**_SPEND_KEY, "key": STRING}),
    "Credentials": obj(
        dict.fromkeys(
            ("wallet_id", "secret_key_id", "secret_key", "merchant_id", "account_id"), STRING
        )
    ),
    "Model": obj(
        {
            "id": STRING,
            "object": {"const": "model"},
            "created": WHOLE,
            "owned_by": STRING,
            "name": STRING,
            "pricing": maybe(
                obj({"input_per_million": maybe(AMOUNT), "output_per_million": maybe(AMOUNT)})
            ),
        }
    ),
    "OutboxMessage": obj(
        {
            "message_id": STRING,
            "kind": STRING,
            "to": STRING,
            "subject": STRING,
            "body": STRING,
            "created_at": TIME,
        }
    ),
}
