"""The console's pages for what is not there, not understood, too old or broken.

Called by Django's handlers (`lava/api/errors.py`, settings) for paths of the console alone.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

WORDS = {
    400: (
        "That could not be read",
        "The address or the form holds characters that cannot be kept. Nothing was changed.",
    ),
    403: (
        "This page was open too long",
        "Signing in or out elsewhere ended it, so nothing was changed. Go back, load the page "
        "anew, and do it again.",
    ),
    404: (
        "There is nothing here",
        "The address may be cut short, or what it named belongs to other books: look which are "
        "open, Live or Sandbox, at the top.",
    ),
    500: (
        "Something broke on our side",
        "Nothing was charged. Try again; if it stays, the reference below tells an operator where "
        "to look.",
    ),
}


def page(request: HttpRequest, status: int) -> HttpResponse:
    """Say what happened: within the frame for members, at the door for strangers."""
    title, text = WORDS[status]
    # A broken page must not stand on what broke it: the door asks the database nothing.
    inside = status != 500 and getattr(request, "membership", None) is not None
    return render(
        request,
        "console/refusal.html" if inside else "console/refusal_door.html",
        {"title": title, "text": text, "reference": getattr(request, "request_id", "")},
        status=status,
    )


def form_too_old(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's CSRF_FAILURE_VIEW."""
    return page(request, 403)
