"""Reading a CSV file of customers: its columns, its lines, and what is wrong in which field.

Pure but for the question who is there already. The fields are those of `POST /v1/connections`, read
by its own readers; the names of our own export are taken too. Called by `imports`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from billing import errors, imports
from billing.api import fields
from billing.models import Merchant

MOST_BYTES = 1_000_000
# What a heading may be called, by the field it is.
COLUMNS = {
    "phone": "phone", "email": "email", "e-mail": "email", "name": "name",
    "first_name": "first_name", "last_name": "last_name", "reference": "reference_id",
    "reference_id": "reference_id",
}  # fmt: skip
METADATA = "metadata."
_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "phone": fields.phone,
    "email": fields.email,
    "name": lambda body: fields.nullable_text(body, "name", most=160),
    "reference_id": lambda body: fields.nullable_text(body, "reference_id"),
    "metadata": fields.metadata,
}
_FORMULA = ("'=", "'+", "'-", "'@")


@dataclass(slots=True)
class Row:
    """One line of the file: where it stands, what it says, what is wrong with it by field."""

    number: int
    values: imports.Line
    problems: dict[str, str] = field(default_factory=dict)
    # There is a customer of that phone or reference: they are left as they are.
    is_known: bool = False

    @property
    def tone(self) -> str:
        return "bad" if self.problems else "" if self.is_known else "ok"


@dataclass(slots=True)
class File:
    """A file that was read. `problem`: it could not be; then there are no rows."""

    rows: list[Row] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def wrong(self) -> list[Row]:
        return [row for row in self.rows if row.problems]

    @property
    def fresh(self) -> list[Row]:
        return [row for row in self.rows if not row.problems and not row.is_known]

    @property
    def known(self) -> list[Row]:
        return [row for row in self.rows if not row.problems and row.is_known]


def decode(content: bytes) -> str:
    """The text of a file.

    Raises:
        billing.errors.Invalid: too large, or no text in UTF-8.
    """
    if len(content) > MOST_BYTES:
        raise errors.Invalid("The file is over 1 MB: split it in two.", param="file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.Invalid("Save the file as CSV in UTF-8.", param="file") from error
    if "\0" in text:
        raise errors.Invalid("This is no CSV file: save the table as CSV.", param="file")
    return text


def read(merchant: Merchant, text: str) -> File:
    """The lines of a file, each with what is wrong in it, and who is there already."""
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    try:
        lines = [
            (number, cells)
            for number, cells in _lines(text, separator)
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        return File(problem=f"This is no CSV file: {error}.")
    if not lines:
        return File(problem="The file is empty. Its first line has the names of the columns.")
    names = [_column(cell) for cell in lines[0][1]]
    if not any(names):
        return File(
            problem="No column has a name that is known. The first line has the names: phone, "
            "email, name, reference_id."
        )
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        return File(problem=f"There are two columns {sorted(twice)[0]}: keep one.")
    if not lines[1:]:
        return File(problem="The file has no line below the names of its columns.")
    if len(lines) - 1 > imports.MOST_LINES:
        return File(
            problem=f"The file has {len(lines) - 1:,} lines; import at most "
            f"{imports.MOST_LINES:,} at a time."
        )
    ignored = [cell.strip() for cell, name in zip(lines[0][1], names, strict=True) if not name]
    rows = [_row(number, cells, names) for number, cells in lines[1:]]
    _compare(rows)
    phones, references = imports.known(merchant, [row.values for row in rows])
    for row in rows:
        row.is_known = row.values["phone"] in phones or row.values["reference"] in references
    return File(rows=rows, ignored=[name for name in ignored if name])


def _lines(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """The lines with their number in the file; of a cell that has several, that of the last."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    return [(reader.line_num, cells) for cells in reader]


def _column(heading: str) -> str:
    """The field of a column; empty for one that is not imported."""
    name = heading.strip()
    if name.lower().startswith(METADATA) and len(name) > len(METADATA):
        return METADATA + name[len(METADATA) :]
    return COLUMNS.get(name.lower().replace(" ", "_"), "")


def _row(number: int, cells: list[str], names: list[str]) -> Row:
    row = Row(number, {"phone": "", "email": "", "name": "", "reference": "", "metadata": {}})
    if len(cells) > len(names):
        row.problems["line"] = (
            f"The line has {len(cells)} fields, and there are {len(names)} names."
        )
        return row
    said = {name: _text(cell) for name, cell in zip(names, cells, strict=False) if name}
    whole = f"{said.pop('first_name', '')} {said.pop('last_name', '')}".strip()
    said["name"] = said.get("name") or whole
    body: dict[str, Any] = {name: text for name, text in said.items() if METADATA not in name}
    body["metadata"] = {
        name.removeprefix(METADATA): text
        for name, text in said.items()
        if name.startswith(METADATA) and text
    }
    for name, reader in _READERS.items():
        target = "reference" if name == "reference_id" else name
        try:
            row.values[target] = reader(body)
        except errors.Invalid as error:
            row.problems[name] = error.message.replace("`", "").removeprefix(f"{name} ")
            row.values[target] = body[name] if name == "metadata" else str(body[name])
    if not row.problems and not any(row.values[name] for name in ("phone", "email", "reference")):
        row.problems["line"] = "Give a phone, an e-mail or a reference_id: nothing else finds them."
    return row


def _text(cell: str) -> str:
    """What a cell says, on one line; the apostrophe that our export puts before a formula is none
    of it."""
    text = " ".join(cell.split())
    return text[1:] if text.startswith(_FORMULA) else text


def _compare(rows: list[Row]) -> None:
    """A phone or a reference is one line's."""
    for name in ("phone", "reference"):
        first: dict[str, int] = {}
        for row in rows:
            text = row.values[name]
            if not text:
                continue
            if text in first:
                key = "reference_id" if name == "reference" else name
                row.problems.setdefault(key, f"Line {first[text]} has the same {key}.")
            first.setdefault(text, row.number)
