"""What the pages post. Every form carries the nonce of the step it was shown for."""

from __future__ import annotations

import json

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext, gettext_lazy

LARGEST_JSON = 8 * 1024


def _plain(text: str) -> None:
    """No control characters, no half characters: nothing that a name or number is written with."""
    if not text.isprintable():
        raise ValidationError(gettext("Use letters, digits and spaces."))


class StepForm(forms.Form):
    """The nonce alone: for buttons."""

    nonce = forms.CharField(max_length=64, required=False)


class PhoneForm(StepForm):
    """Step 1; both are empty where the merchant named the customer."""

    country = forms.CharField(max_length=2, required=False)
    phone = forms.CharField(max_length=32, required=False, validators=[_plain])


class CodeForm(StepForm):
    """Step 2. Spaces and dashes are how people write a code down."""

    code = forms.CharField(max_length=32, required=False)

    def clean_code(self) -> str:
        return "".join(c for c in self.cleaned_data["code"] if c not in " -\u2013")


class BundleForm(StepForm):
    """The pack chosen; empty: choose again."""

    bundle = forms.CharField(max_length=64, required=False)


class PayerForm(StepForm):
    """Step 3: who pays. The amount is never read from a page."""

    name = forms.CharField(
        max_length=120,
        validators=[_plain],
        error_messages={
            "required": gettext_lazy("Enter your full name."),
            "max_length": gettext_lazy("Use at most 120 characters."),
        },
    )
    email = forms.EmailField(
        max_length=254,
        error_messages={
            "required": gettext_lazy("Enter your e-mail address."),
            "invalid": gettext_lazy("Enter an e-mail address such as name@example.com."),
            "max_length": gettext_lazy("Use at most 254 characters."),
        },
    )

    @property
    def problems(self) -> dict[str, str]:
        """One sentence a field that has a problem."""
        return {name: str(found[0]) for name, found in self.errors.items()}


def json_strings(raw: bytes) -> dict[str, str] | None:
    """A small JSON object of strings; None for anything else."""
    if len(raw) > LARGEST_JSON:
        return None
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    return {key: value for key, value in body.items() if isinstance(value, str)}
