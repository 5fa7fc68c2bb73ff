"""A call is settled in one move of its connection; its checks as of billing's `0007_holds`."""

from pathlib import Path

from django.db import migrations, models

from billing.migrating import AMOUNT, said_again

SQL = Path(__file__).resolve().parent.parent / "sql"
CHECKS = {
    "meters_usagerequest": {
        "a_fee_is_not_negative": AMOUNT.format("fee"),
        "a_charge_is_not_negative": AMOUNT.format("charged"),
    },
    "meters_gatewaycall": {"a_call_holds_no_negative": AMOUNT.format("held")},
    "meters_requestcost": {"a_cost_is_not_negative": AMOUNT.format("amount")},
    "meters_forwardtoken": {
        "a_token_holds_no_negative": AMOUNT.format("held"),
        "a_spend_limit_is_not_negative": AMOUNT.format("spend_limit"),
    },
}


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("meters", "0007_positions"), ("billing", "0007_holds")]

    operations = [
        migrations.AlterField(
            model_name="gatewaycall",
            name="http_status",
            field=models.SmallIntegerField(default=0),
        ),
        *(
            migrations.AlterField(
                model_name="gatewaycall", name=name, field=models.IntegerField(default=0)
            )
            for name in ("overhead_ms", "first_byte_ms", "total_ms")
        ),
        *said_again(CHECKS),
        *(
            migrations.RunSQL((SQL / name).read_text(encoding="utf-8"), migrations.RunSQL.noop)
            for name in ("charge.sql", "batch.sql", "gateway_functions.sql")
        ),
    ]
