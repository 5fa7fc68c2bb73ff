"""Billing's paths under /v1, each with the view that answers it.

`/customers` and `/plans` are the newer client's words for `/connections` and
`/subscription_configs`: the same views, answering in those words.
"""

from __future__ import annotations

from django.urls import URLPattern, re_path

from billing.api import connections, keys, plans, subscriptions, webhooks
from billing.api.vocabulary import Words


def _connections(path: str, words: Words, name: str) -> list[URLPattern]:
    one = rf"^{path}/(?P<connection_id>[^/]+)"
    return [
        re_path(rf"^{path}/?$", connections.ConnectionsView.as_view(words=words), name=f"{name}s"),
        re_path(rf"{one}/?$", connections.ConnectionView.as_view(words=words), name=name),
        re_path(
            rf"{one}/subscription/?$",
            connections.ConnectionSubscriptionView.as_view(words=words),
            name=f"{name}-subscription",
        ),
        re_path(
            rf"{one}/balance/?$",
            connections.BalanceView.as_view(words=words),
            name=f"{name}-balance",
        ),
        re_path(
            rf"{one}/ledger/?$", connections.LedgerView.as_view(words=words), name=f"{name}-ledger"
        ),
    ]


urlpatterns = [
    *_connections("connections", Words.OLDER, "connection"),
    *_connections("customers", Words.NEWER, "customer"),
    re_path(r"^credit_bundles/?$", plans.BundlesView.as_view(), name="bundles"),
    re_path(r"^credit_bundles/(?P<bundle_id>[^/]+)/?$", plans.BundleView.as_view(), name="bundle"),
    re_path(r"^subscriptions/?$", subscriptions.SubscriptionsView.as_view(), name="subscriptions"),
    re_path(
        r"^subscriptions/(?P<subscription_id>[^/]+)/?$",
        subscriptions.SubscriptionView.as_view(),
        name="subscription",
    ),
    re_path(r"^secret_keys/?$", keys.SecretKeysView.as_view(), name="secret-keys"),
    re_path(r"^secret_keys/(?P<key_id>[^/]+)/?$", keys.SecretKeyView.as_view(), name="secret-key"),
    re_path(r"^auth/callback/?$", keys.AuthCallbackView.as_view(), name="auth-callback"),
    re_path(r"^webhooks/?$", webhooks.WebhooksView.as_view(), name="webhooks"),
    re_path(r"^webhooks/(?P<webhook_id>[^/]+)/?$", webhooks.WebhookView.as_view(), name="webhook"),
    re_path(
        r"^webhooks/(?P<webhook_id>[^/]+)/rotate/?$",
        webhooks.RotateView.as_view(),
        name="webhook-rotate",
    ),
    re_path(
        r"^webhooks/(?P<webhook_id>[^/]+)/deliveries/?$",
        webhooks.DeliveriesView.as_view(),
        name="webhook-deliveries",
    ),
    re_path(
        r"^webhooks/(?P<webhook_id>[^/]+)/deliveries/(?P<delivery_id>[^/]+)/resend/?$",
        webhooks.ResendView.as_view(),
        name="webhook-resend",
    ),
]
