"""The team: members with their roles, open invitations, and joining by an invitation's link.

Parses, calls one verb of `billing.team`, presents.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import password_validation
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from billing import errors, ids, team, tenancy
from billing import trail as entries
from billing.models import Invitation, Membership, User
from lava.console import access, doors, trail, typed

# What each role may do, in the words of the page.
ROLES = {
    Membership.Role.OWNER: "Everything, the team and the brand included",
    Membership.Role.DEVELOPER: "Keys, webhooks, plans, meters, the sandbox’s clock; sees the rest",
    Membership.Role.SUPPORT: "Gives credits, refunds, switches and cancels plans; sees the rest",
    Membership.Role.VIEWER: "Sees everything, changes nothing",
}


@access.requires("billing.view_membership")
def page(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/team`: members and invitations; POST invites."""
    if request.method == "POST":
        return invite(request)
    return _page(request, typed.Form({"role": Membership.Role.DEVELOPER}))


@access.requires("billing.change_membership")
def invite(request: access.ConsoleRequest) -> HttpResponse:
    """Invite by e-mail; the page shows the link, for the only time."""
    form = typed.Form.read(request.POST.dict())
    try:
        with transaction.atomic():
            invitation, link = team.invite(
                request.organization,
                email=form.text("email"),
                role=form.text("role"),
                by=request.user,
                now=timezone.now(),
            )
            trail.record(
                request,
                "team.invited",
                name=invitation.email,
                after={"role": invitation.role},
                of_books=False,
            )
    except errors.LavaError as error:
        form.refuse(error)
        return _page(request, form, status=422)
    fresh = typed.Form({"role": invitation.role})
    return _page(request, fresh, link=link, invited=invitation)


@access.requires("billing.change_membership")
@require_POST
def role(request: access.ConsoleRequest, member: int) -> HttpResponse:
    """Give a member another role."""
    row = _find(request, member)
    try:
        with transaction.atomic():
            before = {"role": row.role}
            changed = team.change_role(row, role=request.POST.get("role", ""))
            trail.record(
                request,
                "team.role_changed",
                name=row.user.email,
                before=before,
                after={"role": changed.role},
                of_books=False,
            )
    except errors.LavaError as error:
        form = typed.Form({"role": Membership.Role.DEVELOPER})
        form.problems["members"] = error.message
        return _page(request, form, status=409)
    messages.success(request, f"{row.user} is {changed.get_role_display().lower()} now.")
    return redirect("/console/team")


@access.requires("billing.change_membership")
def remove(request: access.ConsoleRequest, member: int) -> HttpResponse:
    """Say what they lose, then take them out."""
    row = _find(request, member)
    problem = ""
    if request.method == "POST":
        try:
            with transaction.atomic():
                team.remove(row)
                trail.record(
                    request,
                    "team.removed",
                    name=row.user.email,
                    before={"role": row.role},
                    after={},
                    of_books=False,
                )
        except errors.LavaError as error:
            problem = error.message
        else:
            messages.success(request, f"{row.user} is out of the team.")
            return redirect("/console/team")
    context = {"member": row, "problem": problem, "is_me": row.user_id == request.user.pk}
    return render(request, "console/team/remove.html", context, status=409 if problem else 200)


@access.requires("billing.change_membership")
@require_POST
def revoke(request: access.ConsoleRequest, invitation: str) -> HttpResponse:
    """Take an open invitation back."""
    try:
        key = ids.parse("inv", invitation)
        row = request.organization.invitations.get(pk=key)
    except (errors.NotFound, Invitation.DoesNotExist) as error:
        raise Http404 from error
    with transaction.atomic():
        team.revoke(row, now=timezone.now())
        if row.accepted_at is None and row.revoked_at is None:
            trail.record(request, "team.invitation_taken_back", name=row.email, of_books=False)
    messages.success(request, f"The invitation to {row.email} is taken back.")
    return redirect("/console/team")


@never_cache
@sensitive_post_parameters("password")
def join(request: HttpRequest, secret: str) -> HttpResponse:
    """`/console/join/…`: who is new chooses a password; who has one signs in first."""
    now = timezone.now()
    try:
        invitation = team.find(secret, now=now)
    except errors.NotFound as error:
        return _ended(request, error.message)
    form = typed.Form.read(request.POST.dict())
    known = User.objects.filter(email=invitation.email).exists()
    user = request.user if request.user.is_authenticated else None
    if request.method == "POST":
        if user is None and not known:
            user = _new_person(invitation, form, password=request.POST.get("password", ""))
        if isinstance(user, User):
            try:
                with transaction.atomic():
                    membership = team.accept(secret, user=user, now=now)
                    entries.record(
                        invitation.organization,
                        "team.joined",
                        by=user,
                        name=user.email,
                        after={"role": membership.role},
                    )
            except errors.NotFound as error:
                return _ended(request, error.message)
            except errors.Forbidden as error:
                form.refuse(error)
            else:
                if not request.user.is_authenticated:
                    doors.enter(request, user)
                doors.open_books(request, membership)
                return redirect(doors.HOME)
    return render(
        request,
        "console/team/join.html",
        {
            "invitation": invitation,
            "form": form,
            "signed_in": user if request.user.is_authenticated else None,
            "known": known,
            "sign_in": f"/console/login/?{urlencode({'next': request.path})}",
        },
        status=422 if form.problems else 200,
    )


def _new_person(invitation: Invitation, form: typed.Form, *, password: str) -> User | None:
    """Make the person of an invitation; what is wrong stands at its field."""
    if not form.text("name"):
        form.problems["name"] = "Write your name."
    draft = User(email=invitation.email, name=form.text("name")[:120])
    try:
        password_validation.validate_password(password, draft)
    except ValidationError as error:
        form.problems["password"] = " ".join(error.messages)
    if form.problems:
        return None
    with transaction.atomic():
        return User.objects.create_user(draft.email, password, name=draft.name)


def _ended(request: HttpRequest, sentence: str) -> HttpResponse:
    return render(request, "console/team/ended.html", {"sentence": sentence}, status=404)


def _find(request: access.ConsoleRequest, key: int) -> Membership:
    rows = request.organization.memberships.select_related("user", "organization")
    found = rows.filter(pk=key).first()
    if found is None:
        raise Http404
    return found


def _page(
    request: access.ConsoleRequest,
    form: typed.Form,
    *,
    link: str = "",
    invited: Invitation | None = None,
    status: int = 200,
) -> HttpResponse:
    organization = request.organization
    now = timezone.now()
    open_invitations = (
        organization.invitations.filter(accepted_at=None, revoked_at=None, expires_at__gt=now)
        .select_related("invited_by")
        .order_by("-created_at")
    )
    context: dict[str, Any] = {
        "members": tenancy.team(organization),
        "invitations": list(open_invitations),
        "roles": [(value.value, value.label, ROLES[value]) for value in Membership.Role],
        "form": form,
        "link": link,
        "invited": invited,
        "zone": request.merchant.time_zone,
    }
    return render(request, "console/team/page.html", context, status=status)


urls: list[URLPattern] = [
    path("team", page, name="team"),
    path("team/<int:member>/role", role, name="team-role"),
    path("team/<int:member>/remove", remove, name="team-remove"),
    path("team/invitations/<str:invitation>/revoke", revoke, name="team-revoke"),
    path("join/<str:secret>", join, name="join"),
]
