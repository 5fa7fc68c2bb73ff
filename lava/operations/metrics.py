"""How the installation is doing, for Prometheus: `GET /metrics`, read from the database when asked.

Nothing is counted in the processes, so any of them gives the same answer and none has to be asked
alone. Figures are of both modes together, by `mode` where that matters; no merchant is named.
Guarded by `LAVA_METRICS_TOKEN` as a bearer; without one set, only loopback may look.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator

import structlog
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

LOOPBACK = frozenset({"127.0.0.1", "::1"})

# Name, kind, help, labels, and the question: labels first, the figure last.
QUESTIONS: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    (
        "lava_usage_requests", "counter", "Usage requests charged and not voided.", ("mode",),
        """
        SELECT m.mode, sum(u.requests) FROM (
            SELECT merchant_id, requests FROM meters_merchantusage
            UNION ALL SELECT merchant_id, requests FROM meters_usagedelta) u
          JOIN billing_merchant m ON m.id = u.merchant_id GROUP BY 1
        """,
    ),
    (
        "lava_fees", "counter", "Fees of usage, in the currency's major unit.",
        ("mode", "currency"),
        """
        SELECT m.mode, m.currency, sum(u.fee) FROM (
            SELECT merchant_id, fee FROM meters_merchantusage
            UNION ALL SELECT merchant_id, fee FROM meters_usagedelta) u
          JOIN billing_merchant m ON m.id = u.merchant_id GROUP BY 1, 2
        """,
    ),
    (
        "lava_payments_open", "gauge", "Charges whose answer is still out, by status.",
        ("status",),
        """
        SELECT status, count(*) FROM billing_payment
         WHERE off_session AND status IN ('pending', 'unknown', 'requires_action') GROUP BY 1
        """,
    ),
    (
        "lava_payments_flagged", "gauge", "Payments that a person must look at.", (),
        "SELECT count(*) FROM billing_payment WHERE flag <> '' OR alarm <> ''",
    ),
    (
        "lava_renewals_due", "gauge", "Subscriptions whose cycle is over and not renewed.", (),
        """
        SELECT count(*) FROM billing_subscription s JOIN billing_merchant m ON m.id = s.merchant_id
         WHERE s.status IN ('active', 'past_due')
           AND coalesce(s.next_attempt_at, s.cycle_end) <= now() + m.clock_offset
        """,
    ),
    (
        "lava_holds_open", "gauge", "Holds on credits that are neither settled nor released.", (),
        "SELECT count(*) FROM billing_hold WHERE state = 'open'",
    ),
    (
        "lava_outbox_lag_seconds", "gauge", "Age of the oldest text or mail that is not sent.",
        ("kind",),
        """
        SELECT o.kind, coalesce(max(extract(epoch FROM now() - o.created_at)), 0)
          FROM billing_outboxmessage o JOIN billing_merchant m ON m.id = o.merchant_id
         WHERE o.sent_at IS NULL AND m.mode = 'live' GROUP BY 1
        """,
    ),
    (
        "lava_events_untold", "gauge", "Events whose deliveries are not made yet.", (),
        "SELECT count(*) FROM billing_event WHERE NOT is_told",
    ),
    (
        "lava_deliveries_due", "gauge", "Deliveries to merchants that are due now.", (),
        """
        SELECT count(*) FROM billing_delivery d
          JOIN billing_webhookendpoint w ON w.id = d.endpoint_id
         WHERE d.state = 'pending' AND d.next_attempt_at <= now()
           AND w.paused_at IS NULL AND w.deleted_at IS NULL
        """,
    ),
    (
        "lava_delivery_lag_seconds", "gauge", "How long the longest due delivery has waited.", (),
        """
        SELECT coalesce(max(extract(epoch FROM now() - d.next_attempt_at)), 0)
          FROM billing_delivery d JOIN billing_webhookendpoint w ON w.id = d.endpoint_id
         WHERE d.state = 'pending' AND d.next_attempt_at <= now()
           AND w.paused_at IS NULL AND w.deleted_at IS NULL
        """,
    ),
    (
        "lava_card_events_unhandled", "gauge", "Events of the card network not acted on yet.", (),
        "SELECT count(*) FROM billing_stripeevent WHERE handled_at IS NULL",
    ),
    (
        "lava_usage_unsummed", "gauge", "Usage that is not yet in the rollups.", (),
        "SELECT count(*) FROM meters_usagedelta",
    ),
    (
        "lava_gateway_calls_running", "gauge", "Gateway calls that have not ended.", (),
        "SELECT count(*) FROM meters_gatewaycall WHERE status = 'pending'",
    ),
    (
        "lava_database_connections", "gauge", "Client connections, by state.", ("state",),
        """
        SELECT coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' GROUP BY 1
        """,
    ),
)  # fmt: skip


class Database(Collector):
    """The questions, asked when somebody looks."""

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Each figure of `QUESTIONS`; only `lava_up` while the database is away."""
        try:
            found = list(_ask())
        except DatabaseError as error:
            log.warning("metrics_unread", error=str(error).strip())
            connection.close()
            found = []
        yield GaugeMetricFamily("lava_up", "Whether the database answers.", value=bool(found))
        yield from found


def _ask() -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    with connection.cursor() as cursor:
        for name, kind, sentence, labels, sql in QUESTIONS:
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
                name, sentence, labels=labels
            )
            cursor.execute(sql)
            for *words, figure in cursor.fetchall():
                family.add_metric([str(word) for word in words], float(figure or 0))
            yield family


def view(request: HttpRequest) -> HttpResponse:
    """`GET /metrics`: 404 to whoever may not look."""
    token = settings.LAVA_METRICS_TOKEN
    if token:
        told = request.headers.get("Authorization", "").removeprefix("Bearer ")
        allowed = secrets.compare_digest(told.encode(), token.encode())
    else:
        allowed = (
            request.META.get("REMOTE_ADDR") in LOOPBACK and "X-Forwarded-For" not in request.headers
        )
    if not allowed:
        return HttpResponse(status=404)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Database())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
