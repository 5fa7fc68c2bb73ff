"""The message catalogues of what customers read: taken from the source, brought up to date,
compiled. By Babel alone: no gettext of the system is needed, here or at `up`.

An app's catalogue holds the words of its Python and of its templates (`FOLDERS`); the compiled
files are kept beside it. `manage.py messages` is the door; the tests ask `complaints`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.conf import settings
from django.utils.translation.template import templatize

KEYWORDS: dict[str, Any] = {
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "pgettext": ((1, "c"), 2),
}
# Whose words an app's catalogue holds.
FOLDERS = {
    "billing": ("billing", "templates/mail"),
    "checkout": ("checkout", "templates/checkout", "templates/hosted", "templates/portal"),
}
_FIELDS = re.compile(r"\{[a-z0-9_]*\}|%\([a-z0-9_]+\)s")
_TAGS = re.compile(r"<[^>]*>")


def languages() -> list[str]:
    """Every language that needs a catalogue: all but English."""
    return [code for code, _ in settings.LANGUAGES if code != "en"]


def source(app: str) -> Catalog:
    """Every message of an app's Python and templates, where it stands in the source."""
    catalog = Catalog(charset="utf-8", header_comment="# What customers read.")
    for folder in FOLDERS[app]:
        for path in sorted((settings.BASE_DIR / folder).rglob("*")):
            if path.suffix not in (".py", ".html") or "migrations" in path.parts:
                continue
            place = path.relative_to(settings.BASE_DIR).as_posix()
            for _, message, _, context in _messages(path):
                catalog.add(message, locations=[(place, 0)], context=context)
    return catalog


def read(app: str, language: str) -> Catalog:
    """A catalogue as it is kept; an empty one where there is none yet."""
    path = po_path(app, language)
    if not path.exists():
        return Catalog(locale=language, charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale=language)


def bring_up_to_date(app: str, language: str) -> Catalog:
    """Write a catalogue that has exactly the messages of the source, and its compiled file. A
    message whose words have changed loses its translation: nothing is guessed."""
    kept = read(app, language)
    kept.update(source(app), no_fuzzy_matching=True)
    kept.obsolete.clear()
    _dress(kept)
    path = po_path(app, language)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, kept, width=100, omit_header=False, sort_output=True, include_lineno=False)
    mo_path(app, language).write_bytes(compiled(kept))
    return kept


def _dress(catalog: Catalog) -> None:
    """A header that says nothing of when and by whom: the same messages give the same bytes."""
    catalog.header_comment = "# What customers read."
    catalog.project, catalog.version, catalog.fuzzy = "Lava", "", False
    catalog.last_translator = catalog.language_team = catalog.msgid_bugs_address = ""
    catalog.creation_date = catalog.revision_date = datetime(2026, 1, 1, tzinfo=UTC)


def compiled(catalog: Catalog) -> bytes:
    """A catalogue as gettext reads it."""
    written = io.BytesIO()
    write_mo(written, catalog)
    return written.getvalue()


def complaints(app: str, language: str) -> Iterator[str]:
    """What is wrong with a catalogue, in words; nothing where it is complete."""
    kept = read(app, language)
    wanted = {(m.id, m.context) for m in source(app) if m.id}
    have = {(m.id, m.context): m for m in kept if m.id}
    for message, _ in wanted - have.keys():
        yield f"{language}: not in the catalogue: {message!r}"
    for key in have.keys() - wanted:
        yield f"{language}: no longer in the source: {key[0]!r}"
    for key in wanted & have.keys():
        yield from _complaints(language, have[key])
    if mo_path(app, language).read_bytes() != compiled(kept):
        yield f"{language}: run `manage.py messages`: the compiled file is older"


def _complaints(language: str, message: Any) -> Iterator[str]:
    ids = message.id if isinstance(message.id, tuple) else (message.id,)
    said = message.string if isinstance(message.string, tuple) else (message.string,)
    if message.fuzzy:
        yield f"{language}: fuzzy: {ids[0]!r}"
    for text in said:
        if not text:
            yield f"{language}: untranslated: {ids[0]!r}"
            continue
        # A singular may leave its number out, as "in a minute" does.
        fields, wanted = set(_FIELDS.findall(text)), set(_FIELDS.findall(ids[-1]))
        if not (fields == wanted or (len(ids) > 1 and fields <= wanted)):
            yield f"{language}: other fields: {ids[0]!r}"
        tags = sorted(_TAGS.findall(text)) == sorted(_TAGS.findall(ids[-1]))
        if not tags or text.count('"') != ids[-1].count('"'):
            yield f"{language}: other markup: {ids[0]!r}"


def po_path(app: str, language: str) -> Path:
    """Where a catalogue is kept."""
    path: Path = settings.BASE_DIR / app / "locale" / language / "LC_MESSAGES" / "django.po"
    return path


def mo_path(app: str, language: str) -> Path:
    """Where its compiled file is."""
    return po_path(app, language).with_suffix(".mo")


def _messages(path: Path) -> Iterator[Any]:
    text = path.read_text()
    if path.suffix == ".html":
        # Django's own reader turns a template into calls of gettext; in brackets the line breaks
        # between them mean nothing to Python's tokenizer.
        text = f"({templatize(text)})"
    return iter(extract("python", io.BytesIO(text.encode()), keywords=KEYWORDS))
