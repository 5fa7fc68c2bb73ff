"""The audit trail: written beside each change of the console, and the page that shows it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import trail
from billing.models import AuditEntry
from lava.console import access, moments

PAGE = 50
# Actions in words, the nouns in the order of the filter.
WORDS = {
    "plan.made": "made the plan",
    "plan.changed": "changed the plan",
    "plan.archived": "archived the plan",
    "plan.versioned": "made a new version of the plan",
    "plan.moved": "began to move the customers of the plan",
    "meter.made": "made the meter",
    "meter.changed": "changed the meter",
    "meter.attached": "attached the meter",
    "meter.detached": "took the meter off a plan",
    "key.made": "made the key",
    "key.offered": "offered a key to",
    "key.revoked": "revoked the key",
    "token.made": "made the forward token",
    "token.changed": "changed the forward token",
    "token.paused": "paused the forward token",
    "token.resumed": "resumed the forward token",
    "token.rotated": "renewed the forward token",
    "token.revoked": "revoked the forward token",
    "provider_key.entered": "entered a key for",
    "provider_key.deleted": "deleted the key for",
    "provider.added": "added the provider",
    "provider.removed": "removed the provider",
    "model_price.set": "set the price of",
    "model_price.removed": "took away the price of",
    "key.rotated": "rotated the key",
    "webhook.made": "made the webhook",
    "webhook.changed": "changed the webhook",
    "webhook.paused": "paused the webhook",
    "webhook.resumed": "resumed the webhook",
    "webhook.rotated": "rotated the secret of the webhook",
    "webhook.resent": "sent a message again to the webhook",
    "webhook.tried": "had what waits tried now for the webhook",
    "webhook.deleted": "deleted the webhook",
    "credits.given": "gave credits to",
    "credits.taken": "took credits from",
    "payment.refunded": "refunded",
    "approval.asked": "asked a second person to approve:",
    "approval.refused": "refused to approve:",
    "approval.withdrawn": "took back the request:",
    "safety.changed": "changed the limits for giving money away",
    "plan.switched": "switched the plan of",
    "plan.stayed": "took back the change of plan of",
    "plan.cancelled": "cancelled the plan of",
    "plan.kept": "kept the plan of",
    "customers.imported": "imported the customers of",
    "customer.disabled": "disabled",
    "customer.enabled": "enabled",
    "gap.looked_for": "compared the books with Stripe",
    "gap.mended": "mended a gap:",
    "clock.moved": "moved the sandbox’s clock",
    "brand.changed": "changed the brand",
    "account.two_step_on": "turned two-step sign-in on:",
    "account.two_step_off": "turned two-step sign-in off:",
    "account.codes_made": "made new recovery codes:",
    "account.signed_out": "signed out elsewhere:",
    "account.password_changed": "chose a new password:",
    "team.invited": "invited",
    "team.invitation_taken_back": "took back the invitation of",
    "team.joined": "joined the team",
    "team.role_changed": "changed the role of",
    "team.removed": "removed from the team",
}
KINDS = {
    "plan": "Plans",
    "meter": "Meters",
    "key": "API keys",
    "token": "Forward tokens",
    "provider_key": "Provider keys",
    "provider": "Providers",
    "model_price": "Model prices",
    "webhook": "Webhooks",
    "credits": "Credits given and taken",
    "payment": "Refunds",
    "approval": "Second person",
    "safety": "Safety",
    "customer": "Customers disabled or enabled",
    "customers": "Customers imported",
    "gap": "Reconciling",
    "clock": "Sandbox clock",
    "brand": "Brand",
    "team": "Team",
    "account": "Sign-in of people",
}
_PAGES = {
    "sc": "/console/plans/{}",
    "prd": "/console/meters/{}",
    "con": "/console/connections/{}",
    "spk": "/console/gateway/tokens/{}",
    "pay": "/console/payments/{}",
    "apr": "/console/approvals/{}",
}


def record(
    request: access.ConsoleRequest,
    action: str,
    target: Any = None,
    *,
    name: str = "",
    before: trail.Facts | None = None,
    after: trail.Facts | None = None,
    of_books: bool = True,
) -> None:
    """Write what the reader of this request changed, in the transaction of the change."""
    trail.record(
        request.organization,
        action,
        by=request.user,
        merchant=request.merchant if of_books else None,
        target=target.public_id if target is not None else "",
        name=name or (str(target) if target is not None else ""),
        before=before,
        after=after,
    )


@access.requires("billing.view_auditentry")
@require_GET
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/audit`: what was changed in the open books and in the business, newest first."""
    query = {name: request.GET.get(name, "").strip() for name in ("kind", "who")}
    rows = AuditEntry.objects.filter(
        Q(merchant=request.merchant) | Q(merchant=None), organization=request.organization
    )
    if query["kind"] in KINDS:
        rows = rows.filter(action__startswith=f"{query['kind']}.")
    if query["who"]:
        rows = rows.filter(Q(actor__icontains=query["who"]) | Q(actor_email=query["who"]))
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        rows = rows.filter(pk__lt=int(before))
    found = list(rows.order_by("-id")[: PAGE + 1])
    kept = {name: value for name, value in query.items() if value}
    zone = request.merchant.time_zone
    return render(
        request,
        "console/audit.html",
        {
            "bands": moments.bands(
                [told(row) for row in found[:PAGE]],
                lambda shown: shown["row"].occurred_at,
                zone,
                now=request.merchant.now(),
            ),
            "older": urlencode(kept | {"before": found[PAGE - 1].pk}) if len(found) > PAGE else "",
            "newest": urlencode(kept) if before else None,
            "query": query,
            "kinds": KINDS.items(),
            "is_filtered": bool(kept),
            "zone": zone,
        },
    )


def told(row: AuditEntry) -> dict[str, Any]:
    """An entry in words, with its fields side by side."""
    prefix = row.target.partition("_")[0]
    return {
        "row": row,
        "verb": WORDS.get(row.action, row.action.replace(".", " ")),
        "url": _PAGES[prefix].format(row.target) if prefix in _PAGES else "",
        "fields": [
            (field.replace("_", " "), _shown(row.before.get(field)), _shown(row.after.get(field)))
            for field in {**row.before, **row.after}
        ],
        "has_before": bool(row.before),
    }


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, list):
        return "; ".join(str(one) for one in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


urls: list[URLPattern] = [path("audit", page, name="audit")]
