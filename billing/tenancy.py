"""The wall between merchants, for people: who may do what, by their role in the organization.

`RoleBackend` is named by settings and answers every `has_perm` of the console; rights come from the
`Membership` in the organization whose books are open (`user.membership`, set by the console's
middleware) and from nowhere else. Rows are walled by `.of(merchant)` in code and by composite
foreign keys in the database (`billing/sql/walls.sql`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.db.models import Count, F, OuterRef, Subquery
from django.db.models.functions import Now

from billing.models import Approval, Membership, Merchant, Organization, User

Role = Membership.Role

# What each role may do beside looking; owners may do everything.
CHANGES: dict[str, frozenset[str]] = {
    Role.DEVELOPER: frozenset(
        {
            "billing.change_secretkey",
            "billing.change_plan",
            "meters.change_meter",
            "billing.change_clock",
            "meters.change_forwardtoken",
            "meters.change_modelprice",
            "meters.change_providerkey",
            "billing.change_webhookendpoint",
        }
    ),
    Role.SUPPORT: frozenset(
        {"billing.change_connection", "billing.add_refund", "billing.change_approval"}
    ),
    Role.VIEWER: frozenset(),
}


def may(membership: Membership | None, permission: str) -> bool:
    """Whether a member may do something, e.g. `billing.change_plan`; looking is open to all."""
    if membership is None:
        return False
    if membership.role == Role.OWNER:
        return True
    action = permission.partition(".")[2]
    return action.startswith("view_") or permission in CHANGES[membership.role]


@dataclass(frozen=True, slots=True)
class Place:
    """A person's membership, with the two sets of books it opens."""

    membership: Membership
    books: dict[str, Merchant]


def places(user: User) -> list[Place]:
    """Where a person is a member, the oldest first; one query, for every page asks it.

    It also brings how many requests for a second person wait in each of the books
    (`merchant.approvals_waiting`), which the sidebar says.
    """
    waiting = (
        Approval.objects.filter(
            merchant=OuterRef("pk"), state=Approval.State.WAITING, expires_at__gt=Now()
        )
        .order_by()
        .values("merchant")
        .annotate(found=Count("pk"))
        .values("found")
    )
    rows = (
        Merchant.objects.filter(organization__memberships__user=user)
        .annotate(
            member_id=F("organization__memberships__pk"),
            role=F("organization__memberships__role"),
            since=F("organization__memberships__created_at"),
            approvals_waiting=Subquery(waiting),
        )
        .select_related("organization")
        .order_by("since", "member_id", "mode")
    )
    found: dict[int, Place] = {}
    for row in rows:
        place = found.get(row.member_id)
        if place is None:
            membership = Membership(
                pk=row.member_id,
                user=user,
                organization=row.organization,
                role=row.role,
                created_at=row.since,
            )
            membership._state.adding = False
            place = found[row.member_id] = Place(membership, {})
        place.books[row.mode] = row
    return list(found.values())


def open_place(
    mine: list[Place], *, organization: str | None, mode: str | None
) -> tuple[Membership | None, Merchant | None]:
    """The membership and the books a person has open: as chosen, else their first, sandbox first.

    A choice that is not theirs counts as none.
    """
    chosen = next(
        (row for row in mine if str(row.membership.organization_id) == organization), None
    )
    place = chosen or (mine[0] if mine else None)
    if place is None:
        return None, None
    wanted = mode if mode in Merchant.Mode.values else Merchant.Mode.SANDBOX
    return place.membership, place.books[str(wanted)]


def team(organization: Organization) -> list[Membership]:
    """The members of an organization, owners first."""
    rows = organization.memberships.select_related("user").order_by("created_at", "pk")
    return sorted(rows, key=lambda row: Role.values.index(row.role))


class RoleBackend(ModelBackend):
    """Signs people in by e-mail and password; their rights come from their open membership."""

    def has_perm(self, user_obj: Any, perm: str, obj: Any = None) -> bool:
        return bool(user_obj.is_active) and may(getattr(user_obj, "membership", None), perm)

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        return bool(user_obj.is_active) and getattr(user_obj, "membership", None) is not None

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        return set()
