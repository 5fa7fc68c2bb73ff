"""What guards a person's account beside the password: a second factor, where they are signed in.

Written by `billing.second_factors` and `billing.sign_ins` alone.
"""

from __future__ import annotations

from django.db import models

from billing.models.merchants import User


class SecondFactor(models.Model):
    """A person's authenticator app (TOTP). It counts once a code of it was confirmed."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="second_factor")
    # The shared secret, by `billing.secrets`.
    secret = models.BinaryField(editable=False)
    confirmed_at = models.DateTimeField(null=True)
    # The time step of the last code that was taken: each code works once.
    last_step = models.BigIntegerField(default=0)
    # Wrong codes since the last right one, and when the last of them was tried.
    failures = models.PositiveIntegerField(default=0)
    failed_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"Second factor of {self.user}"


class RecoveryCode(models.Model):
    """One code that opens the account once when the app is lost. Only its hash is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    code_hash = models.BinaryField(max_length=32, editable=False)
    used_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "code_hash"], name="a_recovery_code_is_kept_once"
            )
        ]

    def __str__(self) -> str:
        return f"Recovery code of {self.user}"


class SignIn(models.Model):
    """A browser a person signed in with; it ends with its session."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sign_ins")
    # Of the session's row: a hash of the cookie.
    session_key = models.CharField(max_length=40, unique=True, editable=False)
    address = models.GenericIPAddressField(null=True)
    browser = models.CharField(max_length=255, blank=True)
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["user", "-at"], name="sign_in_by_person")]

    def __str__(self) -> str:
        return f"{self.user} at {self.at:%Y-%m-%d %H:%M}"
