"""The whole of ``birnn doctor``: every check, or the venues alone."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from cli.adoptions import resolved
from cli.doctor.check import Check
from cli.doctor.checks import Subject, all_checks, checks_table, verdict
from cli.doctor.venues import Finding, examine, reasons, report_of, unserved, venues_table
from cli.screen import asking, print_json, say, screen
from cli.session import configured_topics
from cli.verbs import topics_as_far_as_known
from core.clock import Clock, SystemClock
from core.errors import ConfigError
from core.settings import Settings
from market.venues.registry import check_names


def run_doctor(load: Callable[[], Settings], market: bool, symbols: Sequence[str], *, as_json: bool) -> bool:
    """Examine and print; True if nothing is wrong.

    Args:
        load: gives the settings; without ``market`` and symbols, settings that are wrong are a finding.
        market: examine the venues alone.
        symbols: examine the venues alone, for these.
    """
    clock = SystemClock()
    if market or symbols:
        return _show_venues(resolved(_checked(load)), symbols, clock, as_json=as_json)
    checks: list[Check] = []
    findings: list[Finding] = []
    try:
        subject = Subject(settings=_checked(load), clock=clock)
    except ConfigError as error:
        checks.append(Check("wrong", str(error), "nothing starts before it is mended", name="settings"))
    else:
        with asking("looking at everything, and asking each venue where prices are real") as announce:
            checks = all_checks(subject, announce)
        findings = subject.findings
    well = all(check.state != "wrong" for check in checks)
    if as_json:
        venues = report_of(findings, clock.now_ms())
        print_json({"well": well, "checks": [asdict(check) for check in checks], "venues": venues, "unserved": []})
        return well
    console = screen()
    console.print(verdict(checks), style="bold")
    console.print(checks_table(checks, console.width))
    _print_venues(findings, [], clock)
    return well


def _checked(load: Callable[[], Settings]) -> Settings:
    settings = load()
    check_names(settings)
    return settings


def _show_venues(settings: Settings, symbols: Sequence[str], clock: Clock, *, as_json: bool) -> bool:
    topics = topics_as_far_as_known(settings) if symbols else configured_topics(settings)
    asked = symbols or list(dict.fromkeys(topic.symbol for topic in topics))
    with asking(f"asking each venue for {', '.join(asked)}"):
        findings = examine(settings, asked, topics, clock)
    lacking = unserved(findings, settings)
    if as_json:
        print_json({"venues": report_of(findings, clock.now_ms()), "unserved": lacking})
    else:
        _print_venues(findings, lacking, clock)
    return not lacking


def _print_venues(findings: Sequence[Finding], lacking: Sequence[str], clock: Clock) -> None:
    if findings:
        console = screen()
        console.print(venues_table(findings, clock.now_ms(), console.width))
    for line in (*reasons(findings), *lacking):
        say(line)
