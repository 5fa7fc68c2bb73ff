"""The team of a business: invite by e-mail, join, change a role, leave. Never without an owner.

The only writer of `Membership` after `billing.merchants.create`, and of `Invitation`. Called by the
console. Every verb that could take the last owner away holds the organization's lock.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from billing import errors, ids, outbox
from billing.models import Invitation, Membership, Organization, User

# How long an invitation's link works.
LIFE = timedelta(days=7)
Role = Membership.Role


@transaction.atomic
def invite(
    organization: Organization, *, email: str, role: str, by: User, now: datetime
) -> tuple[Invitation, str]:
    """Offer a place in the team; gives the invitation and its link, which is never to be had again.

    The link is mailed too. An open invitation to the same address ends with the new one.

    Raises:
        billing.errors.Invalid: no e-mail address, or no such role.
        billing.errors.Conflict: the address is in the team already.
    """
    _lock(organization)
    address = email.strip().lower()
    try:
        validate_email(address)
    except ValidationError as error:
        raise errors.Invalid(
            "Write an e-mail address, such as ana@example.com.", param="email"
        ) from error
    _check_role(role)
    if organization.memberships.filter(user__email=address).exists():
        raise errors.Conflict(f"{address} is in the team already.", param="email")
    organization.invitations.filter(email=address, accepted_at=None, revoked_at=None).update(
        revoked_at=now
    )
    secret = secrets.token_urlsafe(32)
    invitation = Invitation(
        organization=organization,
        email=address,
        role=role,
        token_hash=ids.secret_hash(secret),
        invited_by=by,
        created_at=now,
        expires_at=now + LIFE,
    )
    invitation.save()
    link = f"{settings.LAVA_BASE_URL}/console/join/{secret}"
    outbox.mail(
        organization.live,
        to=address,
        subject=f"{by} invites you to {organization.name}",
        body=(
            f"Hello,\n\n{by} invites you to the team of {organization.name} as "
            f"“{invitation.get_role_display()}”.\n\nJoin: {link}\n\n"
            "The link works once, for 7 days. If you did not expect it, do nothing.\n"
        ),
        now=now,
    )
    return invitation, link


def find(secret: str, *, now: datetime) -> Invitation:
    """The open invitation of a link.

    Raises:
        billing.errors.NotFound: no such link, or it was used, taken back, or has ended.
    """
    row: Invitation | None = (
        Invitation.objects.select_related("organization", "invited_by")
        .filter(
            token_hash=ids.secret_hash(secret),
            accepted_at=None,
            revoked_at=None,
            expires_at__gt=now,
        )
        .first()
    )
    if row is None:
        raise errors.NotFound(
            "This invitation was used, taken back, or has ended. Ask for a new one."
        )
    return row


@transaction.atomic
def accept(secret: str, *, user: User, now: datetime) -> Membership:
    """Take the offered place. The same link a second time is not found.

    Raises:
        billing.errors.NotFound: as `find`.
        billing.errors.Forbidden: the invitation is for another address than the user's.
    """
    invitation = find(secret, now=now)
    _lock(invitation.organization)
    invitation = find(secret, now=now)
    if user.email != invitation.email:
        raise errors.Forbidden(
            f"This invitation is for {invitation.email}; you are signed in as {user.email}."
        )
    membership, _ = Membership.objects.get_or_create(
        user=user, organization=invitation.organization, defaults={"role": invitation.role}
    )
    invitation.accepted_at = now
    invitation.save(update_fields=["accepted_at"])
    return membership


@transaction.atomic
def revoke(invitation: Invitation, *, now: datetime) -> None:
    """Take an open invitation back; its link stops. Taken back twice, the first time counts."""
    Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None).update(
        revoked_at=now
    )


@transaction.atomic
def change_role(membership: Membership, *, role: str) -> Membership:
    """Give a member another role.

    Raises:
        billing.errors.Invalid: no such role.
        billing.errors.Conflict: it would leave the business without an owner.
    """
    _lock(membership.organization)
    membership = Membership.objects.select_related("organization").get(pk=membership.pk)
    _check_role(role)
    if role != Role.OWNER:
        _keep_an_owner(membership)
    membership.role = role
    membership.save(update_fields=["role"])
    return membership


@transaction.atomic
def remove(membership: Membership) -> None:
    """Take a member out of the team; they can open nothing of it any more, at once.

    Raises:
        billing.errors.Conflict: they are the last owner.
    """
    _lock(membership.organization)
    current = Membership.objects.filter(pk=membership.pk).first()
    if current is None:
        return
    _keep_an_owner(current)
    current.delete()


def _lock(organization: Organization) -> None:
    Organization.objects.select_for_update().get(pk=organization.pk)


def _check_role(role: str) -> None:
    if role not in Role.values:
        raise errors.Invalid("Choose a role.", param="role")


def _keep_an_owner(membership: Membership) -> None:
    others = Membership.objects.filter(
        organization_id=membership.organization_id, role=Role.OWNER
    ).exclude(pk=membership.pk)
    if membership.role == Role.OWNER and not others.exists():
        raise errors.Conflict(
            "A business keeps at least one owner. Make somebody else an owner first.",
            code="last_owner",
        )
