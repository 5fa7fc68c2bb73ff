"""The simulator: twenty small seeds agree, a seed replays itself, and a fault in the product is
seen."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection as database

from billing.models import LedgerEntry, Merchant
from lava.demo.sim import play
from meters.models import UsageRequest

pytestmark = pytest.mark.django_db


SEEDS = [pytest.param(seed, marks=[pytest.mark.slow] if seed > 4 else []) for seed in range(1, 21)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_seed_agrees(seed: int) -> None:
    report = play.run(seed, months=3, connections=3)
    assert report.requests > 0


def test_a_seed_plays_the_same_again_and_leaves_nothing_behind() -> None:
    first = play.run(3, months=3, connections=3)
    assert play.run(3, months=3, connections=3) == first
    assert not Merchant.objects.exists()
    assert not LedgerEntry.objects.exists() and not UsageRequest.objects.exists()


def test_a_fault_in_the_product_is_seen_with_its_seed() -> None:
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef('billing_spend'::regproc)")
        sound: str = cursor.fetchone()[0]
        broken = sound.replace("take := LEAST(need, lot.remaining);", "take := LEAST(need, 1);")
        assert broken != sound
        cursor.execute(broken)
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("simulate", "--seed", "1", "--months", "3", "--connections", "3", stdout=out)
    assert ended.value.code == 1
    assert "Play it again: python3 manage.py simulate --seed 1 --months 3" in out.getvalue()


def test_the_command_says_what_was_played(capsys: Any) -> None:
    out = StringIO()
    call_command("simulate", "--seeds", "2", "--months", "2", "--connections", "2", stdout=out)
    assert out.getvalue().count("requests charged") == 2
