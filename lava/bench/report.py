"""The figures as a table to read (Markdown) and as JSON to keep."""

from __future__ import annotations

from typing import Any


def machine(facts: dict[str, Any]) -> str:
    """One sentence on the machine."""
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory_gb']} GB, Linux "
        f"{facts['kernel']}, Python {facts['python']}, PostgreSQL {facts['postgresql']} "
        f"(fsync {facts['fsync']}, synchronous_commit {facts['synchronous_commit']}, "
        f"shared_buffers {facts['shared_buffers']}); load before the run {facts['load_before']}"
    )


def requests(facts: dict[str, Any]) -> list[str]:
    """The table of `bench requests`, its ratios beside their goals, and what the books say."""
    lines = [
        "| side | req/s | server, us | database, us | service, us | client, us | p50, ms | p99, ms "
        "| noise |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for side in facts["sides"].values():
        of = side["median"]
        server = f"{of['server_us']:,.0f}" if of["server_us"] else ""
        lines.append(
            f"| {side['says']} | {of['per_s']:,.0f} | {server} | {of['database_us']:,.0f} "
            f"| {of['product_us']:,.0f} | {of['client_us']:,.0f} | {of['p50_ms']:.1f} "
            f"| {of['p99_ms']:.1f} | {side['noise']['per_s']:.0%} |"
        )
    ratio = facts["ratios"]
    lines += [
        "",
        f"- {ratio['product_rate_of_floor']:.0%} of the floor's req/s (goal: 45 %)",
        f"- {ratio['product_cpu_of_floor']:.2f} x the floor's CPU a request, server and database; "
        f"{ratio['product_cpu_of_floor_with_clients']:.2f} x with the callers of both sides "
        "(goal: 2.0 x)",
        f"- {ratio['product_rate_of_naive']:.1f} x the naive design's req/s at 1/"
        f"{ratio['naive_cpu_of_product']:.1f} of its CPU (goal: 12 x)",
        f"- books: {correctness(facts)}",
    ]
    return lines


def batch(facts: dict[str, Any]) -> list[str]:
    """The table of `bench batch`; processor time by record, times by batch."""
    lines = [
        "| side | records/s | server, us | database, us | client, us | p50, ms | noise |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in facts["sides"].values():
        of = side["median"]
        lines.append(
            f"| {side['says']} | {of['per_s']:,.0f} | {of['server_us']:,.1f} "
            f"| {of['database_us']:,.1f} | {of['client_us']:,.1f} | {of['p50_ms']:.0f} "
            f"| {side['noise']['per_s']:.0%} |"
        )
    ratio = facts["ratios"]
    return [
        *lines,
        "",
        f"- {ratio['product_rate_of_copy']:.0%} of raw COPY (goal: 80 %), at "
        f"{ratio['product_cpu_of_copy']:.1f} x its CPU a record, server and database; with brief "
        f"answers {ratio['brief_rate_of_copy']:.0%} at {ratio['brief_cpu_of_copy']:.1f} x",
        f"- books: {correctness(facts)}",
    ]


def correctness(facts: dict[str, Any]) -> str:
    """What was checked after each round, in words."""
    last = facts["books"][-1]
    if facts["correct"]:
        return (
            f"{last['rows']:,} charges, as many as were acknowledged; fees = draws = "
            f"{last['charged']}; no error answer; every rule of the audit holds at the end"
        )
    return (
        f"WRONG: {last['rows']:,} rows for {facts['acknowledged']:,} acknowledged, "
        f"{last['charged']} charged, {last['drawn']} drawn, {facts['refused']:,} refused "
        f"{facts['refusals'][:2]}, broken rules: {', '.join(last['broken']) or 'none'}"
    )


def hot(facts: dict[str, Any]) -> list[str]:
    """The table of `bench hot`."""
    lines = ["| clients on one connection | req/s | service, us | p50, ms | p99, ms | noise |"]
    lines.append("|---|---|---|---|---|---|")
    for name, clients in (("one", 1), ("many", facts["clients"])):
        side = facts["sides"][name]
        of = side["median"]
        lines.append(
            f"| {clients} | {of['per_s']:,.0f} | {of['product_us']:,.0f} | {of['p50_ms']:.1f} "
            f"| {of['p99_ms']:.1f} | {side['noise']['per_s']:.0%} |"
        )
    return [
        *lines,
        "",
        f"- {facts['ratios']['many_of_one']:.2f} x the rate of one client (goal: 1.5 x)",
        f"- books: {correctness(facts)}",
    ]


def gateway(facts: dict[str, Any]) -> list[str]:
    """The table of `bench gateway`, what is added, its goals, and what the books say."""
    lines = [
        f"| side | req/s, {facts['clients']} clients | server, us | database, us | service, us "
        "| p50, ms | p99, ms | one client: p50, ms | p99, ms | first byte, ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for side in facts["sides"].values():
        many, one = (side[way]["median"] for way in ("load", "one"))
        first = f"{side['stream']['median']['p50_ms']:.2f}" if "stream" in side else ""
        cost = [
            f"{many[name]:,.0f}" if many[name] else ""
            for name in ("server_us", "database_us", "product_us")
        ]
        lines.append(
            f"| {side['says']} | {many['per_s']:,.0f} | {' | '.join(cost)} | {many['p50_ms']:.1f} "
            f"| {many['p99_ms']:.1f} | {one['p50_ms']:.2f} | {one['p99_ms']:.2f} "
            f"| {first} |"
        )
    ratio = facts["ratios"]
    lines += [
        "",
        f"- one client: {ratio['ours_added_p50_ms']:.2f} ms added in the middle, "
        f"{ratio['ours_added_p99_ms']:.2f} ms at the 99th percentile; "
        f"{ratio['ours_added_first_byte_ms']:.2f} ms to a stream's first byte (goal: 1.5 ms)",
        f"- {ratio['ours_rate_of_floor']:.0%} of the floor's req/s, "
        f"{ratio['ours_cpu_of_floor']:.2f} x its CPU a call",
    ]
    for name, words in (("pass", "LiteLLM's pass-through"), ("chat", "LiteLLM's chat")):
        if f"ours_rate_of_{name}" in ratio:
            goal = " (goals: 1/3, 5 x)" if name == "pass" else ""
            share = ratio.get(f"ours_added_of_{name}")
            lines.append(
                f"- {words} adds {ratio[f'{name}_added_p50_ms']:.2f} ms"
                + (f": ours is {share:.2f} x that" if share is not None else "")
                + f", at {ratio[f'ours_rate_of_{name}']:.1f} x its req/s and "
                f"{ratio[f'ours_cpu_of_{name}']:.2f} x its CPU a call{goal}; the floor is at "
                f"{ratio[f'floor_rate_of_{name}']:.1f} x its req/s"
            )
    last = facts["books"][-1]
    left = f"{last['open_holds']} open holds, {last['not_completed']} calls not completed"
    return [*lines, f"- books: {correctness(facts)}; {left}"]


def storm(facts: dict[str, Any]) -> list[str]:
    """What `bench storm` found."""
    return [
        f"- {facts['sent']:,} requests of {facts['acknowledged']:,} ids from {facts['clients']} "
        f"clients: {facts['refused']:,} error answers, {facts['deadlocks']} deadlocks",
        f"- books: {correctness(facts)}",
    ]


def enforce(facts: dict[str, Any]) -> list[str]:
    """The table of `bench enforce`."""
    lines = [
        f"{facts['requests']:,} draws of 1 on {facts['credit']:,} credits",
        "",
        "| by | connections | passed | refused with 402 | charged | books |",
        "|---|---|---|---|---|---|",
    ]
    for draw in facts["draws"]:
        held = "hold" if draw["hold"] else f"WRONG: {draw['statuses']}, {draw['books']}"
        lines.append(
            f"| {draw['way']} | {draw['connections']} | {draw['passed']:,} | {draw['refused']:,} "
            f"| {draw['charged']:,} | {held} |"
        )
    return lines
