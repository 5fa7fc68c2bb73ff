"""A second person above a limit: asked, decided once by somebody else, done under both names."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from billing import approvals, audit, connections, errors
from billing.models import (
    Approval,
    AuditEntry,
    Connection,
    CreditGrant,
    LedgerEntry,
    Membership,
    Organization,
    OutboxMessage,
    Refund,
    User,
)
from tests import card_network as cn
from tests import factories
from tests.lava.console.shop import signed_in
from tests.lava.console.test_money_processes import Till, field, new_lines, on, shown_amounts

pytestmark = pytest.mark.django_db
Role = Membership.Role


class Desk(Till):
    """A till with limits, the owner who asks, and more people."""

    def __init__(self, *, above: str | None = "10", support: str | None = None) -> None:
        super().__init__()
        self.merchant = self.shop.merchant
        self.organization: Organization = self.merchant.organization
        approvals.set_limits(
            self.organization,
            second_person_above=Decimal(above) if above is not None else None,
            support_refunds_up_to=Decimal(support) if support is not None else None,
        )

    def join(self, role: str, name: str) -> Client:
        user = factories.make_user(name=name)
        Membership.objects.create(user=user, organization=self.organization, role=role)
        return signed_in(user)

    def member(self, name: str) -> Membership:
        return Membership.objects.get(user__name=name, organization=self.organization)

    def give(self, amount: str, *, client: Client | None = None, **typed: str) -> Any:
        """Give credits as the page does: shown, then pressed."""
        client, where = client or self.client, on("connection-give", key=self.connection.public_id)
        sent = {"amount": amount, "reason": "Sorry"} | typed
        page = client.post(where, sent).content.decode()
        sent |= {"step": "give", "given": field(page, "given"), "key": field(page, "key")}
        return client.post(where, sent)

    def refund(self, amount: str, *, client: Client | None = None, **typed: str) -> Any:
        client, where = client or self.client, on("payment-refund", key=self.payment.public_id)
        sent = {"amount": amount, "reason": "Sorry", "step": "refund", "key": "k"} | typed
        return client.post(where, sent)

    def decide(self, client: Client, step: str, row: Approval | None = None, **typed: str) -> Any:
        row = row or self.asked
        return client.post(on("approval-decide", key=row.public_id), {"step": step} | typed)

    @property
    def asked(self) -> Approval:
        return Approval.objects.of(self.merchant).get()  # type: ignore[no-any-return]

    @property
    def since(self) -> int:
        return Connection.objects.get(pk=self.connection.pk).entry_count


@pytest.fixture
def desk(card_network: cn.CardNetwork) -> Desk:
    return Desk()


def age(row: Approval, by: timedelta) -> None:
    """Let real time pass for a request; the trigger that keeps it steps aside for the test."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_approval DISABLE TRIGGER an_approval_is_decided_once")
        Approval.objects.filter(pk=row.pk).update(
            asked_at=row.asked_at - by, expires_at=row.expires_at - by
        )
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_approval ENABLE TRIGGER an_approval_is_decided_once")


# Asked and approved ------------------------------------------------------------------------------


def test_up_to_the_limit_one_person_is_enough(desk: Desk) -> None:
    since = desk.since
    assert desk.give("10")["Location"] == f"/console/connections/{desk.connection.public_id}"
    assert [amount for _, amount, _ in new_lines(desk.connection, since)] == [10]
    assert not Approval.objects.exists()


def test_credits_above_the_limit_wait_and_are_given_once_under_both_names(desk: Desk) -> None:
    since = desk.since
    where = on("connection-give", key=desk.connection.public_id)
    page = desk.client.post(where, {"amount": "10.01", "reason": "Sorry"}).content.decode()
    assert "A second person is needed" in page and "Ask to give $10.01" in page
    shown = shown_amounts(page)
    answer = desk.give("10.01")
    row = desk.asked
    assert answer["Location"] == f"/console/approvals/{row.public_id}"
    assert desk.since == since
    ben = desk.join(Role.SUPPORT, "Ben Support")
    assert "Give $10.01 to" in ben.get(on("approvals")).content.decode()
    page = ben.get(on("approval", key=row.public_id)).content.decode()
    assert shown_amounts(page) == shown == ["+$10.01"]
    assert desk.since == since
    assert desk.decide(ben, "approve").status_code == 302
    assert [amount for _, amount, _ in new_lines(desk.connection, since)] == [Decimal("10.01")]
    line = LedgerEntry.objects.get(connection=desk.connection, seq=since + 1)
    assert (line.actor, line.reason) == ("Olga Till, approved by Ben Support", "Sorry")
    entry = AuditEntry.objects.get(action="credits.given")
    assert entry.actor == "Ben Support"
    assert (entry.after["asked_by"], entry.after["approved_by"]) == ("Olga Till", "Ben Support")
    trail = desk.client.get(on("audit")).content.decode()
    assert "asked a second person to approve:" in trail and "Olga Till" in trail

    again = desk.decide(ben, "approve")
    assert again.status_code == 422 and b"Ben Support decided this already" in again.content
    assert desk.since == since + 1
    assert b"Ben Support" in desk.client.get(on("approvals"), {"show": "decided"}).content


def test_credits_taken_above_the_limit_wait_too(desk: Desk) -> None:
    since, where = desk.since, on("connection-take", key=desk.connection.public_id)
    sent = {"amount": "12", "reason": "Twice", "step": "take", "given": "0", "key": "t"}
    desk.client.post(where, sent)
    assert desk.since == since
    desk.decide(desk.join(Role.OWNER, "Ann Owner"), "approve")
    assert new_lines(desk.connection, since) == [("adjust", Decimal(-12), Decimal(13))]


def test_a_refund_above_the_limit_reaches_the_card_once_it_is_approved(desk: Desk) -> None:
    answers = [desk.refund("20") for _ in range(2)]
    row = desk.asked
    assert {answer["Location"] for answer in answers} == {f"/console/approvals/{row.public_id}"}
    assert AuditEntry.objects.filter(action="approval.asked").count() == 1
    assert not Refund.objects.exists() and not cn.given_back(desk.merchant)
    ann = desk.join(Role.OWNER, "Ann Owner")
    assert shown_amounts(ann.get(on("approval", key=row.public_id)).content.decode()) == ["−$20.00"]
    page = desk.decide(ann, "approve").headers["Location"]
    made = Refund.objects.get()
    assert (made.actor, made.amount.amount) == ("Olga Till, approved by Ann Owner", 20)
    assert [amount for _, amount, _ in cn.given_back(desk.merchant)] == [2000]
    assert desk.asked.refund_id == made.pk
    assert made.public_id in ann.get(page).content.decode()
    desk.decide(ann, "approve")
    assert [amount for _, amount, _ in cn.given_back(desk.merchant)] == [2000]


def test_what_cannot_be_done_any_more_stays_waiting_and_says_why(desk: Desk) -> None:
    desk.refund("20")
    desk.shop.use(desk.connection, "job", "15")
    ann = desk.join(Role.OWNER, "Ann Owner")
    assert b"spent but for $10.00" in ann.get(on("approval", key=desk.asked.public_id)).content
    assert desk.decide(ann, "approve").status_code == 422
    assert desk.asked.state == Approval.State.WAITING and not Refund.objects.exists()


def test_a_customer_who_was_deleted_meanwhile_is_given_nothing(desk: Desk) -> None:
    desk.give("500")
    ann = desk.join(Role.OWNER, "Ann Owner")
    with transaction.atomic():
        connections.delete(desk.connection, now=desk.connection.merchant.now())
    answer = desk.decide(ann, "approve")
    assert answer.status_code == 422
    assert b"This customer was deleted" in answer.content
    assert desk.asked.state == Approval.State.WAITING
    assert not CreditGrant.objects.filter(source="manual").exists()


def test_nobody_is_asked_for_what_cannot_be_done(desk: Desk) -> None:
    where = on("connection-take", key=desk.connection.public_id)
    sent = {"amount": "26", "reason": "x", "step": "take", "given": "0", "key": "t"}
    assert desk.client.post(where, sent).status_code == 422
    assert not Approval.objects.exists()


# Who decides -------------------------------------------------------------------------------------


def test_nobody_approves_their_own(desk: Desk) -> None:
    desk.give("11")
    since = desk.since
    page = desk.client.get(on("approval", key=desk.asked.public_id)).content.decode()
    assert 'value="approve"' not in page and "somebody else decides: Ana Ruiz." in page
    Membership.objects.exclude(user__name="Olga Till").update(role=Role.VIEWER)
    page = desk.client.get(on("approval", key=desk.asked.public_id)).content.decode()
    assert "nobody else in the team may" in page
    for step in ("approve", "refuse"):
        assert desk.decide(desk.client, step, answer="x").status_code == 422
    assert (desk.since, desk.asked.state) == (since, Approval.State.WAITING)
    me = desk.member("Olga Till")
    with pytest.raises(IntegrityError, match="nobody_decides_their_own"), transaction.atomic():
        Approval.objects.filter(pk=desk.asked.pk).update(
            state="refused", answer="x", decided_by=me.user, decided_at=timezone.now()
        )


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.VIEWER])
def test_who_may_not_give_may_look_and_not_approve(desk: Desk, role: str) -> None:
    desk.give("11")
    client = desk.join(role, "Vic Looks")
    page = client.get(on("approval", key=desk.asked.public_id))
    assert page.status_code == 200 and b'value="approve"' not in page.content
    assert desk.decide(client, "approve").status_code == 403
    with pytest.raises(errors.Forbidden):
        approvals.approve(
            desk.asked, by=desk.member("Vic Looks"), now=desk.shop.now, at=timezone.now()
        )
    assert desk.asked.state == Approval.State.WAITING


def test_a_refusal_needs_a_reason_and_moves_nothing(desk: Desk) -> None:
    desk.give("11")
    since, ann = desk.since, desk.join(Role.OWNER, "Ann Owner")
    bare = desk.decide(ann, "refuse", answer=" ")
    assert bare.status_code == 422 and b"Say why it is refused" in bare.content
    assert desk.decide(ann, "refuse", answer="Too kind").status_code == 302
    page = desk.client.get(on("approval", key=desk.asked.public_id)).content.decode()
    assert "Too kind" in page and "Ann Owner refused it" in page
    assert desk.decide(ann, "approve").status_code == 422
    assert desk.since == since
    entry = AuditEntry.objects.get(action="approval.refused")
    assert (entry.actor, entry.after) == ("Ann Owner", {"reason": "Too kind"})


def test_who_asked_takes_it_back_and_nobody_else_does(desk: Desk) -> None:
    desk.give("11")
    ann = desk.join(Role.OWNER, "Ann Owner")
    assert desk.decide(ann, "withdraw").status_code == 422
    assert desk.decide(desk.client, "withdraw").status_code == 302
    assert desk.decide(ann, "approve").status_code == 422
    assert desk.asked.state == Approval.State.WITHDRAWN


def test_after_seven_days_a_request_has_ended(desk: Desk) -> None:
    desk.give("11")
    since, ann = desk.since, desk.join(Role.OWNER, "Ann Owner")
    age(desk.asked, approvals.LIFE - timedelta(minutes=1))
    assert b'value="approve"' in ann.get(on("approval", key=desk.asked.public_id)).content
    assert b"waiting</span>" in ann.get(on("plans")).content
    age(desk.asked, timedelta(minutes=2))
    answer = desk.decide(ann, "approve")
    assert answer.status_code == 422 and b"Nobody answered within 7 days" in answer.content
    assert desk.since == since
    assert b"waiting</span>" not in ann.get(on("plans")).content
    assert b"Nothing waits" in ann.get(on("approvals")).content
    assert b"Ended" in ann.get(on("approvals"), {"show": "decided"}).content


def test_a_decided_request_is_never_changed(desk: Desk) -> None:
    desk.give("11")
    with pytest.raises(IntegrityError, match="keeps what was asked"), transaction.atomic():
        Approval.objects.filter(pk=desk.asked.pk).update(amount=12)
    desk.decide(desk.client, "withdraw")
    with pytest.raises(IntegrityError, match="decided once"), transaction.atomic():
        Approval.objects.filter(pk=desk.asked.pk).update(answer="x")
    with pytest.raises(IntegrityError, match="decided once"), transaction.atomic():
        Approval.objects.filter(pk=desk.asked.pk).delete()


# The limits --------------------------------------------------------------------------------------


def test_small_gifts_of_a_day_count_together(desk: Desk) -> None:
    since = desk.since
    desk.give("6")
    desk.give("4")
    assert desk.since == since + 2
    desk.give("0.01")
    assert desk.since == since + 2 and desk.asked.amount == Decimal("0.01")


def test_the_refunds_of_a_payment_count_together(desk: Desk) -> None:
    desk.refund("10", key="one")
    assert Refund.objects.count() == 1
    desk.refund("0.50", key="two")
    assert Refund.objects.count() == 1 and desk.asked.amount == Decimal("0.5")


def test_without_a_limit_one_person_gives_all(card_network: cn.CardNetwork) -> None:
    desk = Desk(above=None)
    since = desk.since
    desk.give("100000")
    desk.refund("25")
    assert desk.since == since + 2 and not Approval.objects.exists()


def test_a_limit_of_nothing_asks_for_two_always(card_network: cn.CardNetwork) -> None:
    desk = Desk(above="0")
    since = desk.since
    desk.give("0.0000000001")
    assert desk.since == since and desk.asked.state == Approval.State.WAITING


def test_support_refunds_up_to_its_limit_in_all_and_owners_more(
    card_network: cn.CardNetwork,
) -> None:
    desk = Desk(above=None, support="5")
    ben = desk.join(Role.SUPPORT, "Ben Support")
    refused = desk.refund("5.01", client=ben, key="a")
    assert refused.status_code == 422
    assert b"Support may refund up to $5.00 of a payment" in refused.content
    desk.refund("3", client=ben, key="b")
    assert desk.refund("2.01", client=ben, key="c").status_code == 422
    desk.refund("2", client=ben, key="d")
    desk.refund("8", key="e")
    back = [amount for _, amount, _ in cn.given_back(desk.merchant)]
    assert sorted(back) == [200, 300, 800]


def test_support_approves_no_more_than_it_may_refund(card_network: cn.CardNetwork) -> None:
    desk = Desk(above="1", support="5")
    desk.refund("6")
    ben = desk.join(Role.SUPPORT, "Ben Support")
    page = ben.get(on("approval", key=desk.asked.public_id)).content.decode()
    assert "Support may refund up to $5.00" in page and 'value="approve"' not in page
    assert desk.decide(ben, "approve").status_code == 422
    assert not Refund.objects.exists()


def test_owners_alone_set_the_limits_and_the_trail_says_so(desk: Desk) -> None:
    safety = on("safety")
    assert "Only owners" in desk.join(Role.SUPPORT, "Ben Support").get(safety).content.decode()
    for bad in ("-1", "NaN", "1e3", "x"):
        assert desk.client.post(safety, {"second_person_above": bad}).status_code == 422
    sent = {"second_person_above": "1,250.50", "support_refunds_up_to": ""}
    assert desk.client.post(safety, sent).status_code == 302
    desk.organization.refresh_from_db()
    limits = desk.organization.second_person_above, desk.organization.support_refunds_up_to
    assert limits == (Decimal("1250.5"), None)
    entry = AuditEntry.objects.get(action="safety.changed")
    assert entry.before == {"second_person_above": "10.00"}
    assert entry.after == {"second_person_above": "1250.50"}
    assert 'value="1250.50"' in desk.client.get(safety).content.decode()


# At once -----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_approved_by_many_at_once_it_is_done_once(card_network: cn.CardNetwork) -> None:
    desk = Desk()
    desk.refund("20")
    row, since = desk.asked, desk.since
    for number in range(8):
        desk.join(Role.OWNER, f"Ann {number}")
    members = list(Membership.objects.filter(user__name__startswith="Ann").select_related("user"))

    def approve() -> bool:
        try:
            approvals.approve(row, by=members.pop(), now=desk.shop.now, at=timezone.now())
        except errors.Conflict:
            return False
        return True

    answers = cn.at_once(8, approve)
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    assert answers.count(True) == 1
    assert Refund.objects.count() == 1
    assert [amount for _, amount, _ in new_lines(desk.connection, since)] == [-20]
    assert Approval.objects.get().decided_by_id in set(
        User.objects.filter(name__startswith="Ann").values_list("pk", flat=True)
    )
    for rule in audit.RULES:
        assert not rule.rows(1), rule.name


@pytest.mark.django_db(transaction=True)
def test_gifts_at_once_do_not_pass_the_limit_together(card_network: cn.CardNetwork) -> None:
    """Ten gifts of 4 under a limit of 10: two are given, the others ask."""
    desk = Desk()
    since = desk.since
    client = desk.client
    where = on("connection-give", key=desk.connection.public_id)
    cookies = client.cookies

    def give() -> int:
        mine = Client()
        mine.cookies = cookies.copy()  # type: ignore[assignment]
        for given in ("0", "1", "2"):
            sent = {"amount": "4", "reason": "x", "step": "give", "given": given}
            answer = mine.post(where, sent)
            if answer.status_code == 302:
                break
        return int(answer.status_code)

    cn.at_once(10, give)
    given = [amount for _, amount, _ in new_lines(desk.connection, since)]
    assert sum(given) <= 10 and given == [4] * len(given) and given


def mails(merchant: Any) -> list[tuple[str, str]]:
    rows = OutboxMessage.objects.of(merchant).filter(subject__regex="^(Approve|Refused|Approved)")
    return list(rows.order_by("pk").values_list("to", "subject"))


def test_both_sides_are_told_by_mail(desk: Desk) -> None:
    ann = desk.join(Role.OWNER, "Ann Owner")
    desk.join(Role.VIEWER, "Vic Looks")
    desk.give("20")
    row = Approval.objects.get()
    told = mails(desk.merchant)
    # Who may decide, and nobody else.
    others = {desk.member("Vic Looks").user.email, desk.owner.email}
    assert {subject for _, subject in told} == {f"Approve or refuse: {row}"}
    assert desk.member("Ann Owner").user.email in {to for to, _ in told}
    assert not others & {to for to, _ in told}
    body = OutboxMessage.objects.of(desk.merchant).get(to=desk.member("Ann Owner").user.email).body
    assert row.reason in body and f"/console/approvals/{row.public_id}" in body
    desk.decide(ann, "refuse", answer="Too much")
    assert mails(desk.merchant)[len(told) :] == [(desk.owner.email, f"Refused: {row}")]
    assert "Too much" in OutboxMessage.objects.of(desk.merchant).get(to=desk.owner.email).body


def test_who_takes_their_request_back_needs_no_mail(desk: Desk) -> None:
    desk.join(Role.OWNER, "Ann Owner")
    desk.give("20")
    row = Approval.objects.get()
    before = mails(desk.merchant)
    approvals.withdraw(row, by=row.asked_by, at=timezone.now())
    assert before and mails(desk.merchant) == before
