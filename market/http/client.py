"""HTTP GET from a venue that has several hosts: their order, time limits, back-off, and rate limits."""

import contextlib
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TypeVar

import requests
import structlog
import tenacity
import urllib3

from core.clock import MINUTE_MS, Clock
from core.errors import MalformedKlines, MarketUnavailable
from core.seldom import Seldom
from core.timed_http import one_line, open_answer, read_body, reason_of, retry_after_s, timed_session

T = TypeVar("T")

PROBATION_MS = 10 * MINUTE_MS  # how long a later host that worked stays first, and one that bars us is left out
BODY_LIMIT_BYTES = 64 * 1024 * 1024  # a month of 1m klines is 2 MB zipped
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
SHORTEST_BAN_S = 120.0  # a 418 that does not say when it ends; Binance's bans begin at two minutes
LONGEST_BAN_S = 86_400.0  # of one answer; what says more is no time
SHORTEST_KEY = 8  # what is shorter is a word, not a key

_log = structlog.get_logger()


class Refused(MarketUnavailable):
    """The venue answered that the request itself is not to be had (HTTP 4xx); asking again will not help.

    Args:
        message: what was refused, with the host.
        status: HTTP status.
        code: the venue's own error code, when it sent one.
    """

    def __init__(self, message: str, *, status: int, code: int | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unreached(MarketUnavailable):
    """This host could not be asked, is broken or does not serve us: try another."""


class Blocked(Unreached):
    """The venue does not serve our country or address (HTTP 403, 451); every one of its hosts said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Did a venue answer? True in a condition when it did."""

    ok: bool
    detail: str  # the host that answered, or why none did
    barred: bool = False  # every host bars us: nothing is asked of them for a while

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """How one host is, as far as is known."""

    url: str
    asked: int = 0  # requests so far
    failed: int = 0
    fault: str = ""  # of the last request; empty when it was answered
    blocked_until_ms: int = 0  # not asked before, while another host will do
    doubted_until_ms: int = 0  # asked last before


class Hosts:
    """Interchangeable hosts, tried in order. Safe to use from several threads.

    The host that answered is tried first for ten minutes, then the order is the given one again. A rate limit
    or ban counts by address, not by host: no host is asked before it ends. When a whole patience has been
    waited out in vain, the next calls make one pass each, so that many calls in a row do not each wait.

    Args:
        urls: hosts without a trailing slash, best first.
        clock: for waiting, and for the times in rate limits.
        timeout_s: limit of one answer's first byte and of the pause between two pieces of it; all of it may take
            ``core.timed_http.TIMEOUTS`` times as long.
        patience_s: how long one call may wait in all before it gives up; 0 is one pass over the hosts.
        remedy: ends the message of a failure.
        requests_a_minute: how often it lets itself be asked, whoever asks; None is without limit.
        headers: sent with each request; a key is in them and nowhere else. With any, no redirect is followed.
    """

    def __init__(
        self,
        urls: Sequence[str],
        clock: Clock,
        *,
        timeout_s: float,
        patience_s: float,
        remedy: str,
        requests_a_minute: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.urls = tuple(urls)
        self.requests_a_minute = requests_a_minute
        self._headers = dict(headers or {})
        self._keys = _keys_in(self._headers)
        self._asked_ms: deque[int] = deque()  # requests of the last minute
        self._states = {url: HostState(url=url) for url in self.urls}
        self._clock = clock
        self._timeout = (min(timeout_s, 5.0), timeout_s)  # (connect, read)
        self._patience_s = patience_s
        self._remedy = remedy
        self._local = threading.local()  # requests does not promise that a Session may be shared
        self._lock = threading.Lock()
        self._seldom = Seldom()
        self._chosen = self.urls[0]
        self._chosen_ms = 0
        self._rest_set_ms = self._rest_until_ms = 0
        self._gave_up_ms: int | None = None

    def ask(self, path: str, params: Mapping[str, str | int], parse: Callable[[bytes], T]) -> T:
        """What ``parse`` makes of the first usable answer.

        Args:
            path: begins with a slash.
            params: query parameters.
            parse: turns a body into the value; raises MalformedKlines when it is not what was asked for.
        Raises:
            MarketUnavailable: rate limited, or no host could be asked within the patience.
            Refused: the request itself was refused.
            MalformedKlines: every host that answered sent something else.
        """
        started_ms = self._clock.now_ms()
        gave_up = self._gave_up_ms is not None and started_ms - self._gave_up_ms < self._patience_s * 1000

        def is_over(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            limited = isinstance(error, MarketUnavailable) and error.retry_after_s is not None
            patience_s = self._patience_s if limited or not gave_up else 0.0
            waited_s = (self._clock.now_ms() - started_ms) / 1000
            return waited_s < 0 or waited_s + state.upcoming_sleep > patience_s  # below 0: the clock was set back

        retrying = tenacity.Retrying(
            sleep=self._clock.sleep,
            retry=tenacity.retry_if_exception(_is_passing),
            wait=_wait_s,
            stop=is_over,
            reraise=True,
        )
        try:
            answer: T = retrying(self._pass, path, params, parse)
        except Unreached:
            self._gave_up_ms = self._clock.now_ms()
            raise
        self._gave_up_ms = None
        return answer

    def answers(self, path: str, timeout_s: float) -> Reach:
        """Ask every host at once for something cheap; the first that answers decides.

        Rate limits and bars hold for this as for any request, and what is learnt of them here holds for the others.

        Args:
            path: what to ask for; any answer with status 200 that is JSON counts.
            timeout_s: how long to wait for it in all.
        """
        now_ms = self._clock.now_ms()
        if (rests_s := (self.resting_until_ms - now_ms) / 1000) > 0:
            return Reach(ok=False, detail=f"rate limited: left alone for {rests_s:.0f} s")
        with self._lock:
            open_urls = [url for url in self.urls if not self._is_blocked(url, now_ms)]
            self._forget(now_ms)
            self._asked_ms += [now_ms] * len(open_urls)  # they count as any other
        if not open_urls:
            said = "; ".join(f"{state.url}: {state.fault}" for state in self.states)
            return Reach(ok=False, detail=said, barred=True)
        probes = {
            url: Hosts([url], self._clock, timeout_s=timeout_s, patience_s=0, remedy="", headers=self._headers)
            for url in open_urls
        }
        reasons: dict[str, str] = dict.fromkeys(probes, f"no answer within {timeout_s:g} s")
        pool = ThreadPoolExecutor(len(probes), thread_name_prefix="probe")
        try:
            asked = {pool.submit(probe.ask, path, {}, _any_json): url for url, probe in probes.items()}
            for answered in as_completed(asked, timeout=timeout_s):
                error = answered.exception()
                if error is None:
                    return Reach(ok=True, detail=asked[answered])
                if isinstance(error, Blocked):
                    self._note(asked[answered], error)
                elif isinstance(error, MarketUnavailable) and error.retry_after_s is not None:
                    self._rest(error.retry_after_s)
                reasons[asked[answered]] = str(error).removeprefix(asked[answered]).strip(" :;")
        except TimeoutError:
            pass  # whoever has not answered keeps the reason it began with
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        said = "; ".join(f"{url}: {reason}" for url, reason in reasons.items())
        return Reach(ok=False, detail=said, barred=all(self._is_blocked(url, now_ms) for url in self.urls))

    @property
    def states(self) -> tuple[HostState, ...]:
        """How each host is."""
        with self._lock:
            return tuple(self._states.values())

    def doubt(self, why: str) -> bool:
        """The host that answers is well and tells nothing new: the others come before it for ten minutes.

        Returns:
            Whether there is another one that is not doubted.
        """
        first, *others = self._order()
        now_ms = self._clock.now_ms()
        with self._lock:
            if all(self._is_doubted(url, now_ms) for url in others):
                return False
            state = self._states[first]
            self._states[first] = replace(state, fault=why, doubted_until_ms=now_ms + PROBATION_MS)
        if count := self._seldom.due("market_host_doubted", first):
            _log.warning("market_host_doubted", host=first, why=why, count=count)
        return True

    @property
    def resting_until_ms(self) -> int:
        """End of the last rate limit or ban; in the past when there is none."""
        return self._rest_until_ms if self._clock.now_ms() >= self._rest_set_ms else 0  # else it was set back since

    def _rest(self, seconds: float) -> None:
        """Ask nobody for so long."""
        now_ms = self._clock.now_ms()
        with self._lock:
            self._rest_until_ms = max(self.resting_until_ms, now_ms + round(seconds * 1000))
            self._rest_set_ms = now_ms

    @property
    def asked_last_minute(self) -> int:
        """Requests within the last minute, of ``requests_a_minute``."""
        with self._lock:
            self._forget(self._clock.now_ms())
            return len(self._asked_ms)

    def _forget(self, now_ms: int) -> None:
        while self._asked_ms and not 0 <= now_ms - self._asked_ms[0] < MINUTE_MS:  # the clock may go back
            self._asked_ms.popleft()

    def _spend(self, url: str) -> None:
        """Count a request.

        Raises:
            MarketUnavailable: as many as it allows itself went out within the last minute.
        """
        now_ms = self._clock.now_ms()
        with self._lock:
            self._forget(now_ms)
            if self.requests_a_minute is not None and len(self._asked_ms) >= self.requests_a_minute:
                wait_s = (self._asked_ms[0] + MINUTE_MS - now_ms) / 1000
                raise MarketUnavailable(
                    f"{url}: {self.requests_a_minute} requests went out within a minute, which is all it is asked for; "
                    f"free again in {wait_s:.0f} s",
                    wait_s,
                )
            self._asked_ms.append(now_ms)
            state = self._states[url]
            self._states[url] = replace(state, asked=state.asked + 1)

    def _note(self, url: str, error: Exception | None) -> None:
        with self._lock:
            state = self._states[url]
            if error is None:
                self._states[url] = replace(state, fault="", blocked_until_ms=0)
                return
            until_ms = self._clock.now_ms() + PROBATION_MS if isinstance(error, Blocked) else state.blocked_until_ms
            self._states[url] = replace(
                state, failed=state.failed + 1, fault=one_line(str(error)), blocked_until_ms=until_ms
            )

    def _pass(self, path: str, params: Mapping[str, str | int], parse: Callable[[bytes], T]) -> T:
        """Ask each host once until one answers."""
        resting_s = (self.resting_until_ms - self._clock.now_ms()) / 1000
        if resting_s > 0:
            raise MarketUnavailable(f"rate limited by {self.urls[0]}: left alone for {resting_s:.0f} s", resting_s)
        failures: list[MarketUnavailable | MalformedKlines] = []
        for url in self._order():
            self._spend(url)
            try:
                answer = parse(self._get(url, path, params))
            except (Refused, Unreached) as error:
                self._note(url, None if isinstance(error, Refused) else error)
                failures.append(error)
            except MarketUnavailable as error:
                self._note(url, error)
                if error.retry_after_s is not None:  # some say it with HTTP 200
                    self._rest(error.retry_after_s)
                raise
            except MalformedKlines as error:
                self._note(url, error)
                failures.append(MalformedKlines(f"{url}{path}: {error}"))
            else:
                self._note(url, None)
                self._choose(url)
                return answer
        for failure in failures:
            if isinstance(failure, Refused) and failure.status == 400:
                raise failure  # the request is at fault, whatever ails the other hosts
        if not any(isinstance(failure, Unreached) for failure in failures):
            raise failures[0]
        kind = Blocked if all(isinstance(failure, Blocked) for failure in failures) else Unreached
        raise kind(f"{'; '.join(map(str, failures))}; {self._remedy}")

    def _get(self, url: str, path: str, params: Mapping[str, str | int]) -> bytes:
        """Body of one host's answer with status 200; raises by what the status says."""
        try:
            with self._open(url + path, params) as response:
                body = self._without_keys(read_body(response, BODY_LIMIT_BYTES))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Unreached(f"{url}: {reason_of(error)}") from error
        status = response.status_code
        if status == 200:
            return body
        code, message = _error_of(body)
        what = f"{url} answered HTTP {status} to {path}: {message}"
        if status in {418, 429}:
            raise MarketUnavailable(
                what, _rest_s(response.headers.get("Retry-After"), message, status, self._clock.now_ms())
            )
        if status in {403, 451}:
            raise Blocked(what)
        if not 400 <= status < 500:
            raise Unreached(what)
        raise Refused(what if status == 400 else f"{what}; {self._remedy}", status=status, code=code)

    def _without_keys(self, body: bytes) -> bytes:
        """A venue may tell a key back; here, before a fault quotes a part of what it said."""
        return self._keys.sub(b"***", body) if self._keys else body

    def _open(self, url: str, params: Mapping[str, str | int]) -> requests.Response:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = timed_session(self._headers)
        return open_answer(session, url, params, self._timeout)

    def _order(self) -> list[str]:
        with self._lock:
            now_ms = self._clock.now_ms()
            order = list(self.urls)
            if now_ms - self._chosen_ms < PROBATION_MS:
                order = [self._chosen, *(url for url in self.urls if url != self._chosen)]
            order.sort(key=lambda url: self._is_doubted(url, now_ms))
            return [url for url in order if not self._is_blocked(url, now_ms)] or order

    def _is_blocked(self, url: str, now_ms: int) -> bool:
        # Longer than any block is none: the clock was set back.
        return 0 < self._states[url].blocked_until_ms - now_ms <= PROBATION_MS

    def _is_doubted(self, url: str, now_ms: int) -> bool:
        return 0 < self._states[url].doubted_until_ms - now_ms <= PROBATION_MS

    def _choose(self, url: str) -> None:
        with self._lock:
            now_ms = self._clock.now_ms()
            if url != self._chosen and (count := self._seldom.due("market_host_changed")):
                _log.warning("market_host_changed", host=url, before=self._chosen, count=count)
            if url != self._chosen or now_ms - self._chosen_ms >= PROBATION_MS:
                self._chosen, self._chosen_ms = url, now_ms


def _keys_in(headers: Mapping[str, str]) -> re.Pattern[bytes] | None:
    """What finds the keys of request headers in a body, each letter as it is or as JSON or HTML may escape it."""
    keys = [part for said in headers.values() for part in said.split() if len(part) >= SHORTEST_KEY]

    def forms(letter: str) -> str:
        return rf"(?:{re.escape(letter)}|\\u00{ord(letter):02x}|&#{ord(letter)};|&#x{ord(letter):x};)"

    found = "|".join("".join(map(forms, key)) for key in keys)
    return re.compile(found.encode(), re.IGNORECASE) if found else None


def _any_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedKlines(f"the answer is not JSON but {body[:60]!r}") from error
    return True


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, MarketUnavailable) and not isinstance(error, Refused | Blocked)


def _wait_s(state: tenacity.RetryCallState) -> float:
    """What the venue asked for, else 0.5 s doubling up to 8 s; never 0, so that every wait ends some day."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, MarketUnavailable) else None
    if asked_s is not None:
        return max(asked_s, FIRST_WAIT_S)
    return min(FIRST_WAIT_S * 2.0 ** (state.attempt_number - 1), LONGEST_WAIT_S)


def _error_of(body: bytes) -> tuple[int | None, str]:
    """The venue's error code, when the body has one, and its message as one short line."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body)
        if isinstance(value, dict) and isinstance(value.get("status"), dict):  # CoinGecko
            value = value["status"]
        if isinstance(value, dict):
            code = value.get("code", value.get("error_code"))
            for name in ("msg", "message", "error_message", "error", "detail"):
                if isinstance(value.get(name), str):
                    told = f"{code} {value[name]}" if code is not None else value[name]
                    return (code if isinstance(code, int) else None), one_line(told)
    return None, one_line(re.sub(r"<[^>]*>", " ", body[:1000].decode(errors="replace"))) or "no body"


def _rest_s(retry_after: str | None, message: str, status: int, now_ms: int) -> float | None:
    """How long a rate limited caller must stay away, or None when the answer does not say.

    >>> _rest_s("7", "", 429, 0)
    7.0
    >>> _rest_s(None, "Way too much request weight used; IP banned until 1659146400000.", 418, 1659146340000)
    60.0
    """
    waits: list[float] = []
    if (asked_s := retry_after_s(retry_after, now_ms)) is not None:
        waits.append(asked_s)
    if until := re.search(r"banned until (\d{13})", message):
        waits.append((int(until[1]) - now_ms) / 1000)
    if waits:
        return min(max([0.0, *waits]), LONGEST_BAN_S)
    return SHORTEST_BAN_S if status == 418 else None
