"""A few hundred of the operations of `manage.py charges`, and its detector made to go red."""

from __future__ import annotations

import pytest

from billing import payments, settlement
from billing.models import Payment
from lava.demo.card_network.process import CardNetwork
from tests.chaos.charges import Till

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def test_with_a_tenth_of_the_answers_lost_both_sides_agree_to_the_cent(
    card_network: CardNetwork,
) -> None:
    report = Till(card_network, seed=4, faults=0.1).play(120)
    told = "\n".join(report.lines())
    assert report.is_clean, told
    assert report.faults.total() > 5 and len(report.operations) == 5, told
    assert report.theirs[0] and report.theirs[1], told


def test_an_answer_that_is_taken_for_a_refusal_is_seen(
    card_network: CardNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the network took the money, and the books say that it did not."""

    def refused(payment: Payment) -> Payment:
        now = payment.merchant.now()
        return settlement.fail(payment.pk, code="no_answer", message="No answer.", now=now)

    monkeypatch.setattr(payments, "_mark_unknown", refused)
    report = Till(card_network, seed=4, faults=0.6).play(30)
    assert not report.is_clean and report.theirs[0] != report.ours[0], "\n".join(report.lines())
