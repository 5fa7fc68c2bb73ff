"""The audit: silent on books that hold, and red for each kind of damage done on purpose."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection as database

from billing import audit as money_audit
from billing import overage
from billing.audit import draws
from lava.demo.card_network.process import CardNetwork
from meters import audit as usage_audit
from meters import usage
from tests import card_network as cn
from tests import factories
from tests.billing.test_renewal_sets import random_state
from tests.kept import Kept
from tests.meters.test_charge import report

pytestmark = pytest.mark.django_db

RULES = (*money_audit.RULES, *usage_audit.RULES)


def make_books() -> cn.Shop:
    """Two customers: one paid, used over a tier, owed, was charged, bought a pack and renewed."""
    shop = cn.Shop(rollover_type="none")
    factories.make_meter(
        shop.merchant, shop.plan, slug="tiers", tiers=[("0", "3"), ("1000000", "2")],
        tier_window="cycle",
    )  # fmt: skip
    factories.make_meter(
        shop.merchant, shop.plan, slug="cost", rate_type="percentage", unit="requests",
        tiers=[("0", "20")], base_cost_payer="wallet",
    )  # fmt: skip
    factories.make_meter(
        shop.merchant, shop.plan, slug="volume", unit="requests", tiers=[("0", "0.01")],
        tier_window="cycle", volume_starts=[Decimal(2)], volume_rates=[Decimal("0.004")],
    )  # fmt: skip
    bundle = factories.make_bundle(shop.plan)
    connection = shop.subscribe()
    for number in range(3):
        report(shop.key, connection, f"v{number}", meter_slug="volume")
    report(shop.key, connection, "t1", meter_slug="tiers", input_tokens=900_000)
    report(shop.key, connection, "t2", meter_slug="tiers", input_tokens=300_000)
    report(shop.key, connection, "c1", meter_slug="cost", provider_cost=Decimal("1.3333333333"))
    shop.use(connection, "over", "35")
    overage.collect(connection.pk, now=shop.now)
    shop.use(connection, "owed", "2.5")
    cn.buy(connection, bundle, now=shop.now)
    shop.use(connection, "bundle", "1")
    shop.renew(connection)
    shop.use(connection, "new", "4")
    undone = shop.use(connection, "undone", "2").request
    usage.void(undone, reason="wrong", actor="Ana", now=shop.now)
    cn.subscribe(shop.plan, now=shop.now)
    return shop


def _make_books(network: CardNetwork) -> cn.Shop:
    with cn.reached(network):
        return make_books()


@pytest.fixture(scope="class")
def _books(kept: Kept, running_card_network: CardNetwork) -> None:
    kept.open("books", partial(_make_books, running_card_network))


@pytest.fixture
def books(_books: None, db: None, kept: Kept, running_card_network: CardNetwork) -> cn.Shop:
    shop: cn.Shop = kept.give("books", partial(_make_books, running_card_network))
    return shop


def broken() -> set[str]:
    return {rule.name for rule in RULES if rule.rows()}


def damage(*statements: str) -> None:
    with database.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in (
            "billing_ledgerentry",
            "meters_meterprice",
            "meters_volumesettlement",
            "billing_plan",
        ):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for statement in statements:
            cursor.execute(statement)


def test_books_that_hold_are_silent(books: cn.Shop) -> None:
    assert broken() == set()
    out = StringIO()
    call_command("audit", stdout=out)
    assert out.getvalue() == ""


@pytest.mark.parametrize("seed", range(4))
def test_no_draw_out_of_order_is_missed_in_the_ledgers_that_are_not_replayed(seed: int) -> None:
    dice = random.Random(seed)
    start = datetime(2026, 1, 29, 1, 30, tzinfo=UTC)
    rows = [random_state(dice, factories.make_merchant(), start) for _ in range(12)]
    damage("DROP INDEX a_request_draws_once_from_a_grant")
    for row in rows[::2]:
        grants = [*row.grants.values_list("pk", flat=True), None]
        for line in row.entries.filter(kind="usage"):
            with database.cursor() as cursor:
                cursor.execute(
                    "UPDATE billing_ledgerentry SET grant_id = %s WHERE id = %s",
                    [dice.choice(grants), line.pk],
                )
    every = list(draws.draws_out_of_order("SELECT id FROM billing_connection"))
    assert list(draws.draws_out_of_order()) == every
    assert {row["connection"] for row in every} <= {row.pk for row in rows[::2]}
    assert every or seed


def drop(table: str, constraint: str) -> str:
    return f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"


USAGE = "(SELECT id FROM billing_ledgerentry WHERE kind = 'usage' ORDER BY id LIMIT 1)"
LAST_USAGE = "(SELECT id FROM billing_ledgerentry WHERE kind = 'usage' ORDER BY id DESC LIMIT 1)"
REQUEST = "(SELECT id FROM meters_usagerequest WHERE request_id = 't2')"
PAID = "(SELECT id FROM billing_payment WHERE purpose = 'renewal')"

A_CALL = """
    INSERT INTO meters_gatewaycall (
        id, merchant_id, connection_id, meter_id, price_id, status, billing_disabled, provider,
        own_key, method, endpoint, model, stream, held, estimated_input, estimated_output,
        seen_output, seen_bytes, seen_at, usage, flags, charged, http_status, error, overhead_ms,
        first_byte_ms, total_ms, metadata, created_at, ended_at)
    SELECT id, merchant_id, connection_id, meter_id, price_id, {status}, false, 'openai', false,
           'POST', '/v1', '', false, 0, 0, 0, 0, 0, now(), '{{}}', '{{}}', {charged}, 200, '', 0, 0,
           0, '{{}}', now(), {ended} FROM meters_usagerequest WHERE request_id = 'c1'
"""
A_TOKEN = """
    INSERT INTO meters_forwardtoken (
        id, merchant_id, name, secret_hash, hint, status, request_shape, spend_cycle,
        request_cycle, created_by, created_at, spent, held, requests, total_spent, total_requests)
    SELECT id, id, 't', 'x', '', 'active', 'openai', 'total', 'total', '', now(), 0, 1, 0, 0, 0
      FROM billing_merchant LIMIT 1
"""
A_COST = """
    INSERT INTO meters_requestcost (id, merchant_id, provider, model, source, amount, rates)
    SELECT id, merchant_id, '', 'm', 'library', provider_cost + 1, '{}'
      FROM meters_usagerequest WHERE request_id = 'c1'
"""


def a_call(*, status: str = "completed", charged: str = "charged", ended: str = "now()") -> str:
    return A_CALL.format(status=f"'{status}'", charged=charged, ended=ended)


DAMAGE: dict[str, tuple[str, list[str]]] = {
    "a fee in one tier a ten-billionth off": (
        "fees_recompute",
        [
            "UPDATE meters_usagerequest SET fee = fee + 0.0000000001,"
            " charged = charged + 0.0000000001, slices = jsonb_build_array(jsonb_build_array("
            "0, slices #>> '{0,1}', (fee + 0.0000000001)::text)) WHERE request_id = 'over'"
        ],
    ),
    "a slice of a tier that there is not": (
        "fees_recompute",
        [
            "UPDATE meters_usagerequest SET slices = jsonb_set(slices, '{0,0}', '1')"
            " WHERE request_id = 'over'"
        ],
    ),
    "a balance a ten-billionth off": (
        "balance_is_the_sum",
        ["UPDATE billing_connection SET balance = balance + 0.0000000001"],
    ),
    "a hold that nobody has": (
        "held_is_open_holds",
        ["UPDATE billing_connection SET held = held + 1"],
    ),
    "a call that says another charge": (
        "calls_are_settled_once",
        [a_call(charged="charged + 1")],
    ),
    "a call that hangs": (
        "calls_are_settled_once",
        [
            a_call(status="pending", ended="NULL"),
            "UPDATE meters_gatewaycall SET seen_at = now() - interval '11 minutes'",
        ],
    ),
    "a token that holds for nobody": ("tokens_hold_what_runs", [A_TOKEN]),
    "a cost that is not the request's": ("costs_are_the_requests", [A_COST]),
    "a debt forgotten": (
        "balance_is_the_sum",
        ["UPDATE billing_connection SET debt = debt + 1, balance = balance - 1"],
    ),
    "a line changed": (
        "running_balances",
        [f"UPDATE billing_ledgerentry SET amount = amount - 1 WHERE id = {USAGE}"],
    ),
    "a line removed": (
        "running_balances",
        [f"DELETE FROM billing_ledgerentry WHERE id = {USAGE}"],
    ),
    "a grant topped up by hand": (
        "grants_keep_their_sum",
        ["UPDATE billing_creditgrant SET amount = amount + 5, remaining = remaining + 5"],
    ),
    "credits spent after their end": (
        "draws_within_life",
        [
            "UPDATE billing_creditgrant SET expires_at = effective_at + interval '1 microsecond'",
        ],
    ),
    "debt made while credits were left": (
        "draws_in_order",
        [
            f"UPDATE billing_ledgerentry SET grant_id = NULL WHERE id = {LAST_USAGE}",
        ],
    ),
    "debt held for a charge that is not there": (
        "only_open_charges_collect",
        [
            "ALTER TABLE billing_connection DROP CONSTRAINT only_debt_is_collected",
            "UPDATE billing_connection SET collecting = 1",
        ],
    ),
    "debt erased in silence": (
        "debt_is_conserved",
        [
            "DELETE FROM billing_ledgerentry WHERE kind = 'overage_charged'",
        ],
    ),
    "credit lost on its way into the next cycle": (
        "what_rolls_over_arrives",
        [f"UPDATE billing_ledgerentry SET kind = 'roll' WHERE id = {USAGE}"],
    ),
    "a cycle that begins late": (
        "cycles_follow_the_anchor",
        ["UPDATE billing_cycle SET start = start + interval '1 hour' WHERE index = 1"],
    ),
    "a cycle that lasts too long": (
        "cycles_follow_the_anchor",
        [
            'UPDATE billing_cycle SET "end" = "end" + interval \'1 day\' WHERE index = 1',
            "UPDATE billing_subscription SET cycle_end = cycle_end + interval '1 day'"
            " WHERE cycle_index = 1",
        ],
    ),
    "a cycle granted and not paid": (
        "no_cycle_credit_before_its_payment",
        ["UPDATE billing_cycle SET payment_id = NULL WHERE index = 1"],
    ),
    "a cycle granted twice": (
        "no_cycle_credit_before_its_payment",
        [
            "INSERT INTO billing_creditgrant (id, merchant_id, connection_id, pool, source, amount,"
            " remaining, priority, effective_at, expires_at, origin_at, cycle_id, reason, actor,"
            " created_at) SELECT gen_random_uuid(), merchant_id, connection_id, pool, source, 0, 0,"
            " 0, effective_at, expires_at, origin_at, cycle_id, '', '', created_at"
            " FROM billing_creditgrant WHERE source = 'cycle'",
        ],
    ),
    "a cycle paid in part": (
        "no_cycle_credit_before_its_payment",
        ["UPDATE billing_cycle SET owed = 1 WHERE index = 1"],
    ),
    "a cycle cut short with none after it": (
        "cycles_follow_the_anchor",
        ['UPDATE billing_cycle SET "end" = "end" - interval \'1 day\' WHERE index = 0'],
    ),
    "an upgrade for credits that nobody gave up": (
        "upgrades_gain_nothing",
        ["UPDATE billing_cycle SET unused_credit = 5, unused_value = 5 WHERE index = 1"],
    ),
    "a value above what was paid": (
        "upgrades_gain_nothing",
        ["UPDATE billing_cycle SET unused_value = 5 WHERE index = 1"],
    ),
    "a fall that is not marked": (
        "falls_are_marked",
        [
            "UPDATE billing_connection SET depleted_told = false,"
            " depleted_at = CASE WHEN depleted_at IS NULL THEN now() END",
        ],
    ),
    "a fall nobody was told of": (
        "nothing_is_stuck",
        [
            "UPDATE billing_connection SET depleted_told = false,"
            " depleted_at = now() - interval '3 days'",
        ],
    ),
    "money taken and not settled": (
        "payments_are_settled_once",
        [f"UPDATE billing_cycle SET payment_id = NULL WHERE payment_id = {PAID}"],
    ),
    "an overage charge entered with another amount": (
        "payments_are_settled_once",
        ["UPDATE billing_payment SET amount = amount + 1 WHERE purpose = 'overage'"],
    ),
    "a bundle that was never paid": (
        "payments_are_settled_once",
        ["UPDATE billing_payment SET status = 'failed' WHERE purpose = 'bundle'"],
    ),
    "money on its way back that no refund knows of": (
        "refunds_take_back_once",
        ["UPDATE billing_payment SET refunded = 1 WHERE purpose = 'bundle'"],
    ),
    "one intent for two payments": (
        "one_payment_an_intent",
        ["UPDATE billing_payment SET intent_id = 'pi_1'"],
    ),
    "two open charges": (
        "one_open_charge_a_purpose",
        [
            "DROP INDEX one_open_off_session_charge_a_purpose",
            "DROP INDEX a_cycle_is_paid_once",
            "UPDATE billing_payment SET status = 'pending', off_session = true,"
            " purpose = 'renewal'",
        ],
    ),
    "a charge nobody asks about": (
        "nothing_is_stuck",
        [
            "ALTER TABLE billing_ledgerentry DROP CONSTRAINT"
            " a_ledger_line_is_of_its_payments_merchant",
            "ALTER TABLE billing_creditgrant DROP CONSTRAINT a_grant_is_of_its_payments_merchant",
            "ALTER TABLE billing_cycle DROP CONSTRAINT a_cycle_is_of_its_payments_merchant",
            "INSERT INTO billing_payment SELECT (p).* FROM (SELECT jsonb_populate_record("
            'b, \'{"id": "01000000-0000-4000-8000-000000000000", "key": "old",'
            ' "status": "unknown", "off_session": true, "receipt_number": ""}\') AS p'
            " FROM billing_payment b WHERE purpose = 'bundle') x",
        ],
    ),
    "an event nobody took up": (
        "nothing_is_stuck",
        [
            "INSERT INTO billing_stripeevent (id, type, livemode, payload, received_at, failure)"
            " VALUES ('evt_1', 'x', false, '{}', now() - interval '2 days', '')",
        ],
    ),
    "a renewal that never came": (
        "nothing_is_stuck",
        [
            "UPDATE billing_merchant SET clock_offset = clock_offset + interval '3 months'"
            " WHERE mode = 'sandbox'",
        ],
    ),
    "two currencies": (
        "one_currency",
        ["UPDATE billing_payment SET amount_currency = 'EUR' WHERE purpose = 'bundle'"],
    ),
    "a row of another merchant": (
        "one_merchant",
        [
            drop("billing_paymentmethod", "a_card_is_of_its_connections_merchant"),
            "UPDATE billing_paymentmethod SET merchant_id ="
            " (SELECT id FROM billing_merchant WHERE mode = 'live' LIMIT 1)",
        ],
    ),
    "a request without its lines": (
        "requests_have_their_lines",
        [f"UPDATE billing_ledgerentry SET request_id = gen_random_uuid() WHERE id = {USAGE}"],
    ),
    "a line without its request": (
        "lines_have_their_request",
        [f"DELETE FROM meters_usagerequest WHERE id = {REQUEST}"],
    ),
    "draws that are not the lines": (
        "draws_are_the_lines",
        [
            "UPDATE meters_usagerequest SET draws = jsonb_set(draws, '{0,1}', '\"0.1\"')"
            f" WHERE id = {REQUEST}",
        ],
    ),
    "a request charged twice": (
        "charged_once",
        [
            "UPDATE meters_usagerequest SET request_id = 'same'",
        ],
    ),
    "a request whose key is lost": (
        "charged_once",
        ["DELETE FROM meters_requestkey WHERE request_id = 't2'"],
    ),
    "a key whose request is lost": (
        "charged_once",
        [
            'INSERT INTO meters_requestkey (merchant_id, request_id, "row")'
            " SELECT merchant_id, 'never', id FROM meters_usagerequest LIMIT 1"
        ],
    ),
    "a settled hold without its request": (
        "holds_are_settled_by_requests",
        [
            "INSERT INTO billing_hold (id, merchant_id, connection_id, amount, state, purpose,"
            " expires_at, created_at, ended_at)"
            " SELECT id, merchant_id, connection_id, 1, 'settled', '', now(), now(), now()"
            " FROM meters_usagerequest LIMIT 1",
        ],
    ),
    "a position that forgot a request": (
        "positions_add_up",
        ["UPDATE meters_meterposition SET quantity = quantity - 1"],
    ),
    "two requests at one place": (
        "positions_add_up",
        [f"UPDATE meters_usagerequest SET position_before = 0 WHERE id = {REQUEST}"],
    ),
    "usage that is not in its sums": (
        "usage_adds_up",
        ["UPDATE meters_usagedelta SET fee = fee + 0.0000000001"],
    ),
    "a day that is not its quarters of an hour": (
        "usage_by_day_adds_up",
        [
            "SELECT meters_compact()",
            "UPDATE meters_dayusage SET charged = charged + 0.0000000001 WHERE span = 1",
        ],
    ),
    "eight days that are not each of them": (
        "usage_by_day_adds_up",
        [
            "SELECT meters_compact()",
            "UPDATE meters_dayusage SET provider_cost = provider_cost + 1 WHERE span = 8",
        ],
    ),
    "usage noted for another model": (
        "usage_by_model_adds_up",
        ["UPDATE meters_usagedelta SET model = 'another'"],
    ),
    "a peak that was forgotten": (
        "peaks_are_the_furthest",
        ["UPDATE meters_meterposition SET peak = peak - 1"],
    ),
    "a free allowance edited afterwards": (
        "fees_recompute",
        ["UPDATE meters_meterprice SET free_allowance = 1"],
    ),
    "a flat amount edited afterwards": (
        "fees_recompute",
        ["UPDATE meters_meterprice SET tier_flats = '{1,1}' WHERE tier_rates[1] = 3"],
    ),
    "packages made afterwards": (
        "fees_recompute",
        ["UPDATE meters_meterprice SET package_size = 700000"],
    ),
    "a void whose credits did not return": (
        "voids_give_back_once",
        [
            "UPDATE billing_ledgerentry SET amount = amount - 1"
            " WHERE kind = 'refund' AND grant_id IS NOT NULL",
        ],
    ),
    "credits returned of a request that stands": (
        "voids_give_back_once",
        ["UPDATE meters_usagerequest SET status = 'completed' WHERE request_id = 'undone'"],
    ),
    "a void that never stepped back": (
        "positions_add_up",
        [
            "UPDATE meters_meterposition SET quantity = quantity + 2000000"
            " WHERE meter_id = (SELECT id FROM meters_meter WHERE slug = 'chat')",
        ],
    ),
    "overage of the cycle not counted": (
        "overage_of_the_cycle",
        ["UPDATE billing_connection SET cycle_overage = 3"],
    ),
    "a meter of another merchant": (
        "usage_of_one_merchant",
        [
            drop("meters_meterplan", "a_link_is_of_its_meters_merchant"),
            drop("meters_meterplan", "a_link_is_of_its_plans_merchant"),
            "UPDATE meters_meterplan SET merchant_id ="
            " (SELECT id FROM billing_merchant WHERE mode = 'live' LIMIT 1)",
        ],
    ),
    "a fee a ten-billionth off": (
        "fees_recompute",
        [f"UPDATE meters_usagerequest SET fee = fee + 0.0000000001 WHERE id = {REQUEST}"],
    ),
    "a price version edited afterwards": (
        "fees_recompute",
        ["UPDATE meters_meterprice SET tier_rates[1] = 4"],
    ),
    "a volume discount of another amount": (
        "volume_is_worked_out",
        ["UPDATE meters_volumesettlement SET amount = amount - 0.0000000001"],
    ),
    "a volume rate edited afterwards": (
        "volume_is_worked_out",
        ["UPDATE meters_meterprice SET volume_rates = '{0.005}' WHERE volume_rates <> '{}'"],
    ),
    "a volume discount nobody worked out": (
        "volume_is_worked_out",
        ["DELETE FROM meters_volumesettlement"],
    ),
    "a request that its cycle's volume leaves out": (
        "volume_is_worked_out",
        ["UPDATE meters_usagerequest SET cycle_index = 1 WHERE request_id = 'v2'"],
    ),
    "a cycle whose volume was forgotten": (
        "volume_is_settled",
        [
            "UPDATE meters_meterposition SET unsettled = true WHERE meter_id ="
            " (SELECT id FROM meters_meter WHERE slug = 'volume')",
            "UPDATE billing_merchant SET clock_offset = clock_offset + interval '2 days'"
            " WHERE mode = 'sandbox'",
        ],
    ),
    "a slice moved to another tier": (
        "fees_recompute",
        [
            "UPDATE meters_usagerequest SET slices = jsonb_set(slices, '{0,0}', '1')"
            f" WHERE id = {REQUEST}",
        ],
    ),
    "a count that is not what was used": (
        "fees_recompute",
        [f"UPDATE meters_usagerequest SET input_tokens = 1 WHERE id = {REQUEST}"],
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_seen(books: cn.Shop, name: str) -> None:
    rule, statements = DAMAGE[name]
    damage(*statements)
    assert rule in broken()


def test_every_rule_has_a_damage_that_turns_it_red() -> None:
    assert {rule for rule, _ in DAMAGE.values()} == {rule.name for rule in RULES}


def test_the_command_lists_what_is_broken_and_exits_with_one(books: cn.Shop) -> None:
    damage("UPDATE billing_connection SET balance = balance + 1")
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("audit", stdout=out)
    assert ended.value.code == 1
    assert out.getvalue().startswith("BROKEN balance_is_the_sum: A balance is the sum")
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("audit", "--json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    assert len(found["balance_is_the_sum"]) == 2


def test_the_audit_prices_without_the_products_code() -> None:
    from pathlib import Path

    text = Path(usage_audit.__file__).read_text()
    code = text.split('"""', 2)[2]
    assert "pricing" not in code and "meters_price(" not in code
