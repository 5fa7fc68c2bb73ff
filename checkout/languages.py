"""In which language a hosted page answers: `?locale=` where the address has it, else the browser's.

No cookie is needed: every address that a page leads to carries `?locale=` on (`address`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from billing import locales

View = Callable[..., HttpResponse]

# The language that the address asked for; empty: the browser's own.
_asked: ContextVar[str] = ContextVar("asked", default="")


def spoken(view: View) -> View:
    """Answer in the visitor's language, and say which it is."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        asked = locales.known(request.GET.get("locale", ""))
        token = _asked.set(asked)
        browser = request.headers.get("Accept-Language", "")
        try:
            with locales.speak(asked or locales.of_browser(browser)):
                response = view(request, *args, **kwargs)
                response["Content-Language"] = locales.current()
                return response
        finally:
            _asked.reset(token)

    return answer


def asked() -> str:
    """The language that the address asked for; empty: none."""
    return _asked.get()


def address(name: str, *args: Any, **query: str) -> str:
    """The path of one of our pages, with its query, in the language that was asked for."""
    return with_language(reverse(name, args=args), **query)


def with_language(path: str, **query: str) -> str:
    """A path of ours, with its query, in the language that was asked for."""
    said = query | ({"locale": asked()} if asked() else {})
    return f"{path}?{urlencode(said)}" if said else path
