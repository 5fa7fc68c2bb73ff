"""Cases that broke other billing systems, and the tests that hold each of them here.

The issue in brackets is where it happened. Every test named must be there: a rename that forgets
this list fails.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent

CASES: dict[str, tuple[str, ...]] = {
    "a retry after a failed first try is charged, and once (OpenMeter #5118, Autumn #1838)": (
        "scenarios/test_top_ups::test_retried_after_a_failed_first_try_it_is_charged_and_once",
        "scenarios/test_renewals::test_a_process_that_dies_before_the_network_is_taken_up_again",
    ),
    "the same id twice in parallel is one fee, and both get the same answer": (
        "meters/test_charge::test_a_hundred_parallel_posts_of_one_id_are_one_charge",
        "meters/test_batch::test_a_storm_of_singles_batches_and_duplicates_never_deadlocks",
    ),
    "the same id with another body is refused": (
        "meters/test_charge::test_the_same_id_with_another_body_is_a_conflict",
    ),
    "the same id of another merchant is its own": (
        "meters/test_charge::test_the_same_id_of_another_merchant_is_its_own",
    ),
    "two lines of one customer in one batch are both drawn (Autumn #2552)": (
        "meters/test_batch::test_a_batch_is_one_trip_and_costs_what_singles_cost",
        "meters/test_batch_properties::test_a_batch_is_its_lines_one_by_one",
    ),
    "a webhook twice, out of order, late, or before the API's answer (Lago #2243)": (
        "chaos/test_card_faults::test_a_months_events_again_and_again_in_any_order_change_nothing",
        "scenarios/test_overage::"
        "test_an_event_before_the_answer_settles_and_the_answer_changes_nothing",
        "scenarios/test_disputes::test_the_end_heard_before_the_beginning",
    ),
    "a top-up while one is pending (Lago #1962)": (
        "scenarios/test_top_ups::test_while_one_is_pending_no_other_is_bought_and_overage_waits",
        "scenarios/test_top_ups::test_twenty_at_once_buy_once",
    ),
    "a top-up and the plan's credits wipe each other (Polar #8451, #10513)": (
        "scenarios/test_top_ups::test_a_top_up_and_the_plans_credits_leave_each_other_alone",
    ),
    "two balances disagree by a cent (Lago #4642)": (
        "billing/test_life::test_a_life",
        "meters/test_audit::test_books_that_hold_are_silent",
    ),
    "merchants of UTC+5:30 renew twice (Lago #1074)": (
        "billing/test_periods::test_half_hour_zones_renew_once_a_day",
    ),
    "cycles of leap days overlap or leave a gap (Lago #6173)": (
        "billing/test_calendars::test_leap_days_and_short_months_neither_gap_nor_overlap",
    ),
    "a renewal while draws run": (
        "billing/test_calendars::test_usage_during_a_renewal_falls_wholly_in_one_cycle",
    ),
    "parallel draws through the gateway pass more than the credits cover": (
        "meters/gateway/test_live_faults::"
        "test_two_hundred_at_once_pass_no_more_than_the_credits_cover",
    ),
    "drained, upgraded and downgraded again and again gives free credits (Polar #10482)": (
        "scenarios/test_plan_changes::test_drain_upgrade_downgrade_repeat_gives_no_free_credits",
    ),
    "the process dies between the card and the ledger": (
        "scenarios/test_renewals::"
        "test_a_process_that_dies_after_the_network_finds_the_charge_and_charges_once",
        "chaos/test_failpoints::"
        "test_a_process_that_dies_at_any_place_leaves_every_cent_in_its_place",
    ),
    "amounts under the card's least charge are lost": (
        "scenarios/test_first_month::test_parts_of_a_cent_and_of_the_least_charge_are_carried",
    ),
    "beat twice, workers twice, messages lost": (
        "chaos/test_kills::"
        "test_a_worker_that_beats_renews_on_the_sandboxs_clock_though_it_is_killed",
        "scenarios/test_unpaid::test_beat_and_workers_twice_make_one_try_a_day",
        "scenarios/test_top_ups::test_the_sweep_finds_what_a_lost_message_left",
    ),
}  # fmt: skip


@lru_cache
def named_in(module: str) -> frozenset[str]:
    tree = ast.parse((HERE / f"{module}.py").read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_its_tests(case: str) -> None:
    for name in CASES[case]:
        module, test = name.split("::")
        assert test in named_in(module), name
