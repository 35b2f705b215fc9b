"""HTTP GET from a venue that has several hosts: their order, retries and back-off, within the venue's limits."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from core.backoff import backoff
from core.clock import MINUTE_MS, Clock
from core.errors import MalformedKlines, MarketUnavailable
from core.net.http import NoReply, get, new_session, one_line
from core.seldom import Seldom
from market.http.errors import Blocked, ErrorReply, Refused, Unreached, read_error
from market.http.limits import Limits
from market.http.masking import key_pattern

T = TypeVar("T")

PROBATION_MS = 10 * MINUTE_MS  # how long another host stays first, and a host that bars us is left out
PROBATION_S = PROBATION_MS / 1000
BODY_LIMIT_BYTES = 64 * 1024 * 1024  # a month of 1m klines is 2 MB zipped
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
LONGEST_CONNECT_S = 5.0

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class HostState:
    """The state of a host."""

    url: str
    asked: int = 0  # requests so far
    fault: str = ""  # of the last request; empty if it was answered
    barred_until_s: float = float("-inf")  # left out until then, while another host is left
    demoted_until_s: float = float("-inf")  # asked last until then

    @property
    def is_barred(self) -> bool:
        """True since the host last barred us, until the host answers again."""
        return self.barred_until_s > float("-inf")


class HostPool:
    """Interchangeable hosts, tried in order. Safe to use from several threads.

    The host that answered is tried first for ten minutes; then the given order holds again. A rate limit or ban counts
    by our address, so no host is asked before it ends. After a call has waited out its whole patience in vain, the
    next calls make one pass each, so that many calls in a row do not each wait.

    Args:
        urls: hosts without a trailing slash, best first.
        clock: for waits, limits and dates in headers.
        timeout_s: limit for the first byte of a response and for each pause in its body.
        patience_s: how long one call may wait in all; 0 is one pass over the hosts.
        remedy: ends the message of a failure.
        requests_a_minute: budget of the venue, whoever asks; None is without limit.
        headers: sent with each request. A key is in them and nowhere else.
        fault_of: the exception of an error response, by the venue's own rules.
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
        fault_of: Callable[[ErrorReply], MarketUnavailable] = ErrorReply.fault,
    ) -> None:
        self.urls = tuple(urls)
        self.limits = Limits(urls[0], clock, requests_a_minute)
        self._hosts = [HostState(url=url) for url in urls]
        self._clock = clock
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._remedy = remedy
        self._headers = dict(headers or {})
        self._keys = key_pattern(self._headers)
        self._fault_of = fault_of
        self._local = threading.local()  # requests does not promise that threads may share a Session
        self._lock = threading.Lock()
        self._seldom = Seldom()
        self._preferred = self._hosts[0]
        self._preferred_until_s = float("-inf")
        self._gave_up_s = float("-inf")  # when a whole patience was last waited out in vain

    @property
    def states(self) -> tuple[HostState, ...]:
        """A copy of the state of each host."""
        with self._lock:
            return tuple(map(replace, self._hosts))

    def ask(self, path: str, params: Mapping[str, str | int], parse: Callable[[bytes], T]) -> T:
        """Return what ``parse`` makes of the first usable response.

        Raises:
            MarketUnavailable: rate limited, or no host could be asked within the patience.
            Refused: the request itself was refused.
            MalformedKlines: raised by ``parse`` for every host that answered.
        """
        started_s = self._clock.elapsed_s()
        patience_s = 0.0 if started_s - self._gave_up_s < self._patience_s else self._patience_s
        failures = 0
        while True:
            try:
                answer = self._pass(path, params, parse)
            except Refused:
                raise
            except MarketUnavailable as error:
                failures += 1
                if error.retry_after_s is None:
                    wait_s, longest_s = backoff(failures, FIRST_WAIT_S, LONGEST_WAIT_S), patience_s
                else:
                    wait_s, longest_s = max(error.retry_after_s, FIRST_WAIT_S), self._patience_s
                is_over = self._clock.elapsed_s() - started_s + wait_s > longest_s
                if is_over or isinstance(error, Blocked):
                    if isinstance(error, Unreached):
                        self._gave_up_s = self._clock.elapsed_s()
                    raise
                self._clock.sleep(wait_s)
            else:
                self._gave_up_s = float("-inf")
                return answer

    def ping(self, path: str, timeout_s: float) -> str:
        """Ask every host at once for something cheap. Returns why no host answers in JSON; empty if a host does."""
        with self._lock:
            reasons = {host.url: host.fault for host in self._hosts}
        hosts = [host for host in self._hosts if not self._is_left_out(host)]
        reasons |= {host.url: f"no answer within {timeout_s:g} s" for host in hosts}
        pool = ThreadPoolExecutor(len(self._hosts), thread_name_prefix="ping")
        try:
            asked = {pool.submit(self._ask_host, host, path, {}, json_of, timeout_s): host.url for host in hosts}
            for answered in as_completed(asked, timeout=timeout_s):
                url, failure = asked[answered], answered.exception()
                if failure is None:
                    return ""
                reasons[url] = str(failure).removeprefix(url).strip(" :;")
        except TimeoutError:
            pass  # the reasons say which host did not answer
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return "; ".join(f"{url}: {reason}" for url, reason in reasons.items())

    def demote(self, why: str) -> bool:
        """Move the current host, which answers with old candles, to the end for ten minutes.

        Returns False, and changes nothing, if all other hosts are demoted.
        """
        first, *others = self._order()
        now_s = self._clock.elapsed_s()
        with self._lock:
            if all(host.demoted_until_s > now_s for host in others):
                return False
            first.fault, first.demoted_until_s = why, now_s + PROBATION_S
        if count := self._seldom.due("market_host_demoted", first.url):
            _log.warning("market_host_demoted", host=first.url, why=why, count=count)
        return True

    def _pass(self, path: str, params: Mapping[str, str | int], parse: Callable[[bytes], T]) -> T:
        failures: list[MarketUnavailable | MalformedKlines] = []
        for host in self._order():
            try:
                answer = self._ask_host(host, path, params, parse, self._timeout_s)
            except (Refused, Unreached, MalformedKlines) as error:
                failures.append(error)
            else:
                self._prefer(host)
                return answer
        for failure in failures:
            if isinstance(failure, Refused) and failure.status == 400:
                raise failure  # the request is wrong, so the other hosts' faults do not matter
        if not any(isinstance(failure, Unreached) for failure in failures):
            raise failures[0]
        kind = Blocked if all(isinstance(failure, Blocked) for failure in failures) else Unreached
        raise kind(f"{'; '.join(map(str, failures))}; {self._remedy}")

    def _ask_host(
        self, host: HostState, path: str, params: Mapping[str, str | int], parse: Callable[[bytes], T], timeout_s: float
    ) -> T:
        self.limits.spend()
        fault: Exception | None = None
        try:
            return parse(self._get(host.url, path, params, timeout_s))
        except Refused:
            raise
        except MarketUnavailable as error:
            fault = error
            if error.retry_after_s is not None:
                self.limits.rest(error.retry_after_s)
            raise
        except MalformedKlines as error:
            fault = error
            raise MalformedKlines(f"{host.url}{path}: {error}") from error
        finally:
            with self._lock:
                host.asked += 1
                host.fault = one_line(str(fault)) if fault else ""
                if isinstance(fault, Blocked):
                    host.barred_until_s = self._clock.elapsed_s() + PROBATION_S
                elif fault is None:
                    host.barred_until_s = float("-inf")

    def _get(self, url: str, path: str, params: Mapping[str, str | int], timeout_s: float) -> bytes:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = new_session(self._headers)
        waits = {"connect_s": min(timeout_s, LONGEST_CONNECT_S), "read_s": timeout_s}
        try:
            reply = get(session, url + path, params, **waits, limit_bytes=BODY_LIMIT_BYTES)
        except NoReply as error:
            raise Unreached(f"{url}: {error}") from error
        if self._keys:
            reply = replace(reply, body=self._keys.sub(b"***", reply.body))
        if reply.status == 200:
            return reply.body
        raise self._fault_of(read_error(reply, url, path, self._remedy, self._clock.now_ms()))

    def _is_left_out(self, host: HostState) -> bool:
        return host.barred_until_s > self._clock.elapsed_s()

    def _order(self) -> list[HostState]:
        now_s = self._clock.elapsed_s()
        with self._lock:
            preferred = self._preferred if now_s < self._preferred_until_s else None
            order = sorted(self._hosts, key=lambda host: (host.demoted_until_s > now_s, host is not preferred))
            return [host for host in order if not self._is_left_out(host)] or order

    def _prefer(self, host: HostState) -> None:
        with self._lock:
            if host is not self._preferred and (count := self._seldom.due("market_host_changed")):
                _log.warning("market_host_changed", host=host.url, before=self._preferred.url, count=count)
            now_s = self._clock.elapsed_s()
            if host is not self._preferred or now_s >= self._preferred_until_s:
                self._preferred, self._preferred_until_s = host, now_s + PROBATION_S


def json_of(body: bytes) -> Any:
    """Parse a body; raises MalformedKlines if it is not JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedKlines(f"the answer is not JSON but {body[:60]!r}") from error
