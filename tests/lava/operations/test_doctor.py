"""`manage.py doctor` and `reseal`: what is wrong is named with what to do."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, models

from billing import errors, secrets, webhooks
from billing.models import CardAccount
from lava import beating
from lava.operations import doctor, sealed
from tests import factories

pytestmark = pytest.mark.django_db


def seen(look: Any) -> dict[str, doctor.Finding]:
    return {row.what: row for row in look()}


def test_the_tests_own_database_is_found_to_forget() -> None:
    """The tests' cluster is thrown away and does not write to disk: a real thing to find."""
    found = seen(doctor.database)
    assert found["PostgreSQL"].is_well
    assert found["fsync"].seen == "off" and "survive a crash" in found["fsync"].mend
    assert found["synchronous_commit"].mend and found["full_page_writes"].mend
    assert found["default_transaction_isolation"].is_well


def test_the_owner_may_change_the_ledger_and_the_products_role_may_not() -> None:
    found = seen(doctor.rights)
    assert found["UPDATE on the ledger"].seen == "granted"
    assert found["append-only trigger"].is_well
    found = seen(lambda: doctor.rights("lava_app"))
    assert all(row.is_well for row in found.values()), found


def test_a_trigger_that_is_switched_off_is_found() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_ledgerentry DISABLE TRIGGER USER")
    assert seen(doctor.rights)["append-only trigger"].mend


def test_migrations_and_clocks_agree() -> None:
    assert seen(doctor.migrations)["migrations"].is_well
    assert seen(doctor.clocks)["clock of the database"].is_well


def test_a_card_network_that_is_away_is_said_and_not_raised(settings: Any) -> None:
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    settings.LAVA_BASE_URL = "http://127.0.0.1:9"
    found = seen(doctor.cards) | seen(doctor.address)
    assert len(found) == 3
    assert all("no answer" in row.seen and row.mend for row in found.values()), found


def test_the_command_says_what_to_mend_and_exits_1(settings: Any) -> None:
    settings.STRIPE_API_BASE = settings.LAVA_BASE_URL = "http://127.0.0.1:9"
    out = StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command("doctor", stdout=out)
    assert stopped.value.code == 1
    assert "MEND  fsync: off" in out.getvalue()
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("doctor", "--json", stdout=out)
    assert {row["what"] for row in json.loads(out.getvalue())} >= {"fsync", "disk", "migrations"}


def account_with_secrets() -> CardAccount:
    merchant = factories.make_merchant()
    account = CardAccount.objects.create(
        merchant=merchant,
        account_id="acct_1",
        secret_key=secrets.seal("sk_test_of_the_merchant"),
        publishable_key="pk_test_1",
        webhook_secret=secrets.seal("whsec_of_the_merchant"),
        changed_by="test",
    )
    webhooks.create(merchant, name="Hook", url="https://hooks.example.com/lava", now=merchant.now())
    return account


def test_a_new_key_opens_nothing_until_the_former_is_a_fallback_and_reseal_moves_all(
    settings: Any,
) -> None:
    account = account_with_secrets()
    former, settings.SECRET_KEY = settings.SECRET_KEY, "another key, as long as it has to be " * 2
    assert seen(doctor.sealed_secrets)["sealed secrets"].seen == "0 of 3 open"
    with pytest.raises(SystemExit):
        call_command("reseal", stdout=StringIO(), stderr=StringIO())
    settings.SECRET_KEY_FALLBACKS = [former]
    assert seen(doctor.sealed_secrets)["sealed secrets"].is_well
    out = StringIO()
    call_command("reseal", stdout=out)
    assert "3 secrets" in out.getvalue()
    settings.SECRET_KEY_FALLBACKS = []
    account.refresh_from_db()
    assert secrets.open(account.secret_key) == "sk_test_of_the_merchant"
    assert secrets.open(account.webhook_secret) == "whsec_of_the_merchant"
    settings.SECRET_KEY = former
    with pytest.raises(errors.Unavailable):
        secrets.open(account.secret_key)


def test_every_sealed_column_is_known() -> None:
    """A bytes column of ours is hashed, a picture, or in the list of what is sealed."""
    known = {(model, column) for model, columns in sealed.COLUMNS for column in columns}
    plain = {"fingerprint", "secret_hash", "token_hash", "code_hash", "logo"}
    for model in apps.get_models():
        if model._meta.app_label not in ("billing", "meters", "checkout", "lava", "console"):
            continue
        for field in model._meta.get_fields():
            if isinstance(field, models.BinaryField) and field.name not in plain:
                assert (model, field.name) in known, f"{model._meta.label}.{field.name}"


def test_a_beat_of_another_database_on_the_server_is_not_ours() -> None:
    params = connection.get_connection_params()
    for name in ("cursor_factory", "context", "pool", "assume_role", "server_side_binding"):
        params.pop(name, None)
    lock = "SELECT pg_advisory_lock(%s)"
    with psycopg.connect(**params | {"dbname": "postgres", "autocommit": True}) as other:
        other.execute(lock, [beating.LOCK])
        assert seen(doctor.beat)["beat"].mend
    with psycopg.connect(**params | {"autocommit": True}) as ours:
        ours.execute(lock, [beating.LOCK])
        assert seen(doctor.beat)["beat"].is_well
