"""Customers from a CSV file: chosen, shown line by line, confirmed, and made by a worker.

Nothing is kept of a file before it is confirmed: the page itself carries its text. A confirmed one
is a job in the database, so its page may be left and found again. Calls `billing.imports`.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from django.db import transaction
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from billing import errors, tasks
from billing import imports as verbs
from billing.models import CustomerImport
from lava.console import access, customer_files, moments, trail, typed
from lava.console.customer_files import File, Row

# Lines that are shown of a file, those with something wrong first.
SHOWN = 100


@access.requires("billing.change_connection")
def new(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/imports/new`: choose a file, look at its lines, make the customers."""
    merchant = request.merchant
    form = typed.Form.read(request.POST.dict())
    text, filename = request.POST.get("text", ""), form.text("filename")
    upload = request.FILES.get("file")
    key = f"console:{form.text('key')}"[:64]
    confirmed = upload is None and form.text("step") == "import" and bool(form.text("key"))
    if confirmed and (job := verbs.begun(merchant, key=key)) is not None:
        return redirect(f"/console/imports/{job.public_id}")
    found: File | None = None
    if request.method == "POST":
        try:
            if upload is not None:
                text = customer_files.decode(upload.read(customer_files.MOST_BYTES + 1))
                filename = str(upload.name)
            if not text:
                raise errors.Invalid("Choose a CSV file.", param="file")
            found = customer_files.read(merchant, text)
        except errors.Invalid as error:
            form.refuse(error)
    if found is not None and found.problem:
        form.problems["file"], found = found.problem, None
    if found is not None and confirmed:
        if found.fresh and not found.wrong:
            return _start(request, found, filename, key, now=merchant.now())
        form.problems["form"] = "The customers have changed since this page was shown. Look again."
    return render(
        request,
        "console/imports/new.html",
        {
            "form": form,
            "found": found,
            "rows": _shown(found) if found else [],
            "text": text,
            "filename": filename,
            "key": secrets.token_urlsafe(12),
            "most": verbs.MOST_LINES,
        },
        status=422 if form.problems or (found and found.wrong) else 200,
    )


def _shown(found: File) -> list[Row]:
    return [*found.wrong, *found.fresh, *found.known][:SHOWN]


def _start(
    request: access.ConsoleRequest, found: File, filename: str, key: str, *, now: datetime
) -> HttpResponse:
    """Begin the job and wake a worker; with the broker away the sweep finds it."""
    with transaction.atomic():
        job = verbs.start(
            request.merchant,
            lines=[row.values for row in found.rows],
            filename=filename,
            key=key,
            actor=str(request.user),
            now=now,
        )
        if job.created_at == now:
            trail.record(
                request, "customers.imported", name=job.filename, after={"lines": str(job.count)}
            )
    tasks.hint_import(job.pk)
    return redirect(f"/console/imports/{job.public_id}")


@access.requires("billing.view_connection")
@require_GET
def progress(request: access.ConsoleRequest, key: str) -> HttpResponse:
    """`/console/imports/<id>`: how far an import is; looks again by itself until it is done."""
    rows = CustomerImport.objects.of(request.merchant).defer("lines")
    try:
        job: CustomerImport = rows.by_public_id(key)
    except errors.NotFound as error:
        raise Http404 from error
    return render(
        request,
        "console/imports/progress.html",
        {
            "job": job,
            "waiting": job.count - job.done,
            "took": moments.span(job.finished_at - job.created_at) if job.finished_at else "",
            "zone": request.merchant.time_zone,
        },
    )


@access.requires("billing.view_connection")
@require_GET
def listing(request: access.ConsoleRequest) -> HttpResponse:
    """`/console/imports/`: every import, the newest first."""
    rows = CustomerImport.objects.of(request.merchant).defer("lines").order_by("-id")
    return render(
        request,
        "console/imports/list.html",
        {"imports": list(rows[:100]), "zone": request.merchant.time_zone},
    )


urls: list[URLPattern] = [
    path("imports/", listing, name="imports"),
    path("imports/new", new, name="import-new"),
    path("imports/<str:key>", progress, name="import"),
]
