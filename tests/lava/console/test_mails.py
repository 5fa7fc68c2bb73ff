"""The previews of the mails: each, in each language, in a frame where nothing runs."""

from __future__ import annotations

import re

import pytest
from django.conf import settings

from lava.console import mails
from tests.lava.console.shop import Shop

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("language", [code for code, _ in settings.LANGUAGES])
def test_every_mail_is_previewed_in_every_language(ours: Shop, language: str) -> None:
    client = ours.client()
    seen = set()
    for name in mails.MAILS:
        query = {"mail": name, "language": language}
        page = client.get("/console/mails/page", query)
        html = page.content.decode()
        assert page.status_code == 200 and f'<html lang="{language}">' in html
        assert "{" not in re.sub(r"<style.*?</style>", "", html), name
        policy = page["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'self'" in policy
        listing = client.get("/console/mails", query).content.decode()
        (subject,) = re.findall(rf'<h2 lang="{language}">([^<]+)', listing)
        seen.add(subject)
    # "Out of credits" has one subject and says two things.
    assert len(seen) == len(mails.MAILS) - 1


def test_a_mail_or_language_we_do_not_have_is_not_found(ours: Shop) -> None:
    client = ours.client()
    for query in ({"mail": "nothing"}, {"language": "xx"}):
        assert client.get("/console/mails", query).status_code == 404
        assert client.get("/console/mails/page", query).status_code == 404


def test_a_merchants_name_is_words_and_never_markup(ours: Shop) -> None:
    ours.organization.name = '"><svg onload=alert(1)>'
    ours.organization.save()
    html = ours.client().get("/console/mails/page").content.decode()
    assert "<svg" not in html and "&lt;svg" in html
