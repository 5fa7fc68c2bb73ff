"""A few hundred of the inputs of `manage.py hostile`, and its detectors made to go red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpResponse

from billing import errors
from lava.api import errors as answers
from tests import factories
from tests.security import hostile

pytestmark = pytest.mark.django_db


def told(report: hostile.Report) -> str:
    return "\n".join(report.lines())


def test_some_hundred_hostile_inputs_break_nothing_and_write_nothing() -> None:
    report = hostile.attack(400, seed=7)
    assert report.is_clean, told(report)
    # It was no parade of one refusal.
    assert report.sent == 400 and len(report.kinds) == 8 and len(report.answers) > 5, told(report)


def test_the_same_seed_sends_the_same_inputs() -> None:
    assert hostile.attack(60, seed=3).answers == hostile.attack(60, seed=3).answers


def breaks(error: Exception, context: dict[str, Any]) -> Any:
    raise RuntimeError("A refusal that breaks.")


def shows_a_page(error: Exception, context: dict[str, Any]) -> Any:
    return HttpResponse("<html>Refused</html>", status=400)


def says_nothing(error: Exception, context: dict[str, Any]) -> Any:
    return HttpResponse(b"{}", status=400, content_type="application/json")


SOUND = answers.handler


def writes(error: Exception, context: dict[str, Any]) -> Any:
    if isinstance(error, errors.LavaError):
        factories.make_user()
    return SOUND(error, context)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (breaks, lambda report: report.server_errors),
        (shows_a_page, lambda report: report.html),
        (says_nothing, lambda report: report.shapeless),
        (writes, lambda report: report.rows),
    ],
)
def test_each_detector_goes_red_when_it_must(
    monkeypatch: pytest.MonkeyPatch, fault: Any, seen: Callable[[hostile.Report], int]
) -> None:
    # First the framework's: it looks the handler up at its first use, and that is put back.
    monkeypatch.setattr("rest_framework.views.api_settings.EXCEPTION_HANDLER", fault)
    monkeypatch.setattr(answers, "handler", fault)
    report = hostile.attack(40, seed=5)
    assert not report.is_clean and seen(report), told(report)
