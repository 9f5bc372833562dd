"""Owns the signatures of requests to AWS (Signature Version 4), and the credentials for them. Extra: `sigv4`.

    Emitter("https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-.../api/v1/remote_write",
            encoder="remote-write", signer=SigV4())

The arithmetic is botocore's, and so are the places where credentials are looked for. Ours is when: a signature is asked
for in the middle of a flush, where botocore would wait for the network once credentials are about to expire. Here they
are fetched in a thread, well before they expire, and a flush takes what is there.

Sources: AWS, "Signature Version 4 signing process"; AWS Lambda developer guide, "Defined runtime environment variables"
and "Improving startup performance with SnapStart"; `botocore.credentials.RefreshableCredentials`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

from emitter import forking, snap_start
from emitter.back_off import BackOff, chance
from emitter.clocks import Clocks
from emitter.errors import ConfigurationError, CredentialsError
from emitter.settings import checked_timeout

try:
    from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
    from botocore.credentials import (  # type: ignore[import-untyped]
        ContainerProvider,
        EnvProvider,
        RefreshableCredentials,
    )
    from botocore.exceptions import (  # type: ignore[import-untyped]
        BotoCoreError,
        PartialCredentialsError,
        ProfileNotFound,
        SSOError,
    )
except ImportError as error:
    raise ImportError("emitter.sigv4 needs botocore; install it with: pip install 'lambda-emitter[sigv4]'") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

__all__ = ["DEFAULT_WAIT", "REFRESH_WINDOW", "SigV4"]

DEFAULT_WAIT = 2.0
"""Seconds that making an emitter waits for credentials at most. Lambda's endpoint for them answers in milliseconds, and
INIT may take 10 s; what needs longer arrives while the handler works."""

REFRESH_WINDOW = 900.0
"""Seconds before they expire from which on credentials are fetched anew: botocore's own (its advisory window), and so
what those who give them away are prepared for."""

_CHANGED_ON_THE_WAY = (
    # By whoever passes a request on: taken away, added, rewritten (RFC 9110, 7.6.1); cookies by load balancers.
    "connection expect keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    "upgrade user-agent cookie content-length accept-encoding forwarded via baggage traceparent tracestate "
    "x-amzn-trace-id"
)
_ADDED_HERE = "authorization date x-amz-date x-amz-security-token"
_UNSIGNED = frozenset([*_CHANGED_ON_THE_WAY.split(), *_ADDED_HERE.split()])

_SUFFIXES = (
    # Of all AWS partitions, with IPv4 alone and with both (botocore, data/partitions.json; a test compares).
    "amazonaws.com|api.aws|amazonaws.com.cn|api.amazonwebservices.com.cn|amazonaws.eu|api.amazonwebservices.eu|"
    "c2s.ic.gov|api.aws.ic.gov|sc2s.sgov.gov|api.aws.scloud|cloud.adc-e.uk|api.cloud-aws.adc-e.uk|csp.hci.ic.gov|"
    "api.aws.hci.ic.gov"
).replace(".", r"\.")

_REGION = r"[a-z]+(?:-[a-z]+)+-[0-9]+"

_HOST = re.compile(
    # A workspace, an API, either through an endpoint in a VPC; the URL of a function.
    rf"(?:.+\.)?(aps-workspaces|execute-api)(?:-fips)?\.({_REGION})(?:\.vpce)?\.(?:{_SUFFIXES})"
    rf"|.+\.(lambda-url)\.({_REGION})\.on\.aws"
)

_SERVICES = {"aps-workspaces": "aps", "execute-api": "execute-api", "lambda-url": "lambda"}
"""By which a signature calls them."""

_NOT_YET = "they are being fetched, and the next report finds them"
_NONE_NEWER = "those who give them away had none that last for longer, and are asked again"

_MEND = (
    "expected those of the function's execution role, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or a profile that AWS_PROFILE names; the logger 'botocore' tells where it looks"
)


class _Target(NamedTuple):
    """What of a URL goes into a signature."""

    url: str  # with its query as the signature has it
    service: str
    region: str


class _Keys(NamedTuple):
    """Credentials, and until when they are some."""

    frozen: Any  # botocore's `ReadOnlyCredentials`
    origin: str
    expires: float | None  # seconds since 1970; `None`: never

    def __repr__(self) -> str:
        return f"<_Keys from {self.origin}>"


class SigV4:
    """Signs reports for AWS: Amazon Managed Prometheus, API Gateway and Lambda function URLs among others.

    Make it at the top of the module, for the emitter: that has credentials looked for, in a thread, and waits a little
    for them, unless it is disabled. From then on nothing here waits. Once they are about to expire, the next report
    that is signed has them fetched anew in a thread. Emitters, threads and event loops may share one signer.

    Args:
        service: How signatures call the service: `"aps"`, `"execute-api"`, `"lambda"`. `None`: told from the host.
        region: Such as `"eu-central-1"`. `None`: told from the host, else AWS_REGION, else AWS_DEFAULT_REGION.
        credentials: Gives botocore's credentials each time they are needed anew, as in
            `credentials=boto3.Session(profile_name="dev").get_credentials`. It is called in a thread. `None`: they are
            looked for where botocore and boto3 do.
        wait: Seconds to wait for credentials while an emitter is made with this; 0: not at all.
        clocks: Both clocks. For tests.

    Raises:
        ConfigurationError: An argument that cannot be what it is to be; which, and what was expected.
    """

    def __init__(
        self,
        service: str | None = None,
        region: str | None = None,
        *,
        credentials: Callable[[], Any] | None = None,
        wait: float = DEFAULT_WAIT,
        clocks: Clocks | None = None,
    ) -> None:
        self._service = _word("service", service)
        self._region = _word("region", region)
        self._default_region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
        if credentials is not None and not callable(credentials):
            raise ConfigurationError(
                f"credentials is a {type(credentials).__name__}; expected a function that gives botocore's "
                "credentials, such as boto3.Session().get_credentials"
            )
        self._load = credentials or _chain(os.environ)
        self._wait = checked_timeout(wait, "wait")
        self._clocks = clocks or Clocks()
        self._targets: dict[str, _Target] = {}
        self._forget()
        forking.watch(self)
        snap_start.watch(None, self._restart, os.environ)

    def __repr__(self) -> str:
        return f"<SigV4 service={self._service!r} region={self._region!r}>"

    def _restart(self) -> None:
        """Look for credentials as if nobody had before: those from before a snapshot may be those of INIT, and old."""
        self._forget()
        if self._targets:
            self._find()

    def _forget(self) -> None:
        self._keys: _Keys | None = None
        self._problem = _NOT_YET
        self.after_fork()

    def _find(self) -> None:
        thread = self._begin_to_fetch()
        if thread is not None:
            thread.join(self._wait)

    def after_fork(self) -> None:
        """Go on without a thread that fetches: in a forked child there is none, whoever holds the lock."""
        self._busy = threading.Lock()
        self._back_off = BackOff(self._clocks, chance)

    def check(self, url: str) -> None:
        """Get ready to sign requests to a URL: the first one has credentials looked for.

        Raises:
            ConfigurationError: What cannot be told from it, and what to give. That there are no credentials is left
                to `sign` to say.
        """
        if url not in self._targets:
            self._targets[url] = self._target(url)
            if self._keys is None:
                self._find()

    def sign(self, method: str, url: str, headers: Mapping[str, str], body: bytes | bytearray) -> Mapping[str, str]:
        """The header fields to add to a request. Waits for nothing, if the URL was checked before.

        Args:
            method: `POST`.
            url: Where it goes to, in full.
            headers: The fields that it has. Those that may change on the way, and cookies, are not signed.
            body: As it goes out.

        Raises:
            CredentialsError: There are no credentials, or they have expired; why, and what was expected.
            ConfigurationError: See `check`.
        """
        self.check(url)
        target = self._targets[url]
        now = self._clocks.wall()
        keys = self._usable(now).frozen
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        added = {"X-Amz-Date": moment}
        if keys.token:
            added["X-Amz-Security-Token"] = keys.token
        signed = {name: value for name, value in headers.items() if name.lower() not in _UNSIGNED}
        added["Authorization"] = _authorization(method, target, {**signed, **added}, body, keys, moment)
        return added

    def _target(self, url: str) -> _Target:
        parts = urlsplit(url)
        host = parts.hostname or ""
        found = _HOST.fullmatch(host)
        name, region = filter(None, found.groups()) if found is not None else ("", "")
        service = self._service or _SERVICES.get(name, "")
        region = self._region or region or self._default_region
        missing = [each for each, value in (("service", service), ("region", region)) if not value]
        if missing:
            example = ", ".join(f'{each}="{_EXAMPLES[each]}"' for each in missing)
            raise ConfigurationError(
                f"the host {host} does not tell which {' and '.join(missing)} to sign for; expected SigV4({example})"
            )
        return _Target(parts._replace(query=_canonical_query(parts.query), fragment="").geturl(), service, region)

    def _usable(self, now: float) -> _Keys:
        keys = self._keys
        left = REFRESH_WINDOW if keys is None or keys.expires is None else keys.expires - now
        if keys is None or left < REFRESH_WINDOW:
            self._begin_to_fetch()
            keys = self._keys  # it may have been quick
        if keys is None:
            raise CredentialsError(f"there are no AWS credentials to sign with: {self._problem}")
        if keys.expires is not None and keys.expires <= now:
            raise CredentialsError(
                f"the AWS credentials from {keys.origin} expired {now - keys.expires:.0f} s ago: {self._problem}"
            )
        return keys

    def _begin_to_fetch(self) -> threading.Thread | None:
        """Fetch credentials in a thread, unless one does or has just failed to."""
        busy = self._busy
        if self._back_off.waiting or not busy.acquire(blocking=False):
            return None
        thread = threading.Thread(target=self._fetch, args=(busy,), name="emitter-credentials", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be had: out of them, or the interpreter is about to end
            self._fail(f"no thread could be started to fetch them ({error})")
            busy.release()
            return None
        except BaseException:  # interrupted: the next one tries again
            busy.release()
            raise
        return thread

    def _fetch(self, busy: threading.Lock) -> None:
        """Runs in a thread of its own, so nobody waits for it and nobody hears what it raises."""
        try:
            keys = None
            try:
                keys = _keys(self._load())
                problem = _NONE_NEWER if keys is not None else f"none were found; {_MEND}"
            except Exception as error:  # noqa: BLE001  files, networks, programs, users' functions: they raise anything
                problem = f"{_told(error)}; {_MEND}"
            if busy is self._busy:  # else somebody has begun anew meanwhile, after a restore
                self._note(keys, problem)
        finally:
            busy.release()

    def _note(self, keys: _Keys | None, problem: str) -> None:
        if keys is not None:
            self._keys = keys
        if keys is not None and (keys.expires is None or keys.expires - self._clocks.wall() >= REFRESH_WINDOW):
            self._problem = _NOT_YET
            self._back_off.succeed()
        else:
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        self._problem = problem
        self._back_off.fail()


_EXAMPLES = {"service": "execute-api", "region": "eu-central-1"}


def _word(name: str, value: str | None) -> str:
    if value is not None and not (isinstance(value, str) and re.fullmatch(r"[a-z0-9-]+", value)):
        raise ConfigurationError(f"{name} is {value!r}; expected a name such as {_EXAMPLES[name]!r}")
    return value or ""


def _canonical_query(query: str) -> str:
    """Each name and value encoded as the other side will encode them, whichever way the URL has them.

    botocore takes a query as it is, but `db=a/b` and `db=a%2fb` are both verified as `db=a%2Fb`.
    """
    if "+" in query:
        # A space to some, a plus to others; whoever takes it for the other finds the signature wrong.
        raise ConfigurationError("the query of the endpoint has a '+' in it; expected %20 for a space, %2B for a plus")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, _, value in pairs)


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


# What follows is the edge to botocore, which has no types.


class _Malformed(ValueError):  # noqa: N818  says what it is
    """Credentials that are none; its text holds nothing of them."""


def _authorization(
    method: str, target: _Target, headers: Mapping[str, str], body: bytes | bytearray, keys: Any, moment: str
) -> str:
    """The field's value. Not by `add_auth`, which reads a clock of its own, and logs the session token at DEBUG."""
    request = AWSRequest(method, target.url, headers, body)
    request.context["timestamp"] = moment
    signer = SigV4Auth(keys, target.service, target.region)
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    return f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"


def _chain(environment: Mapping[str, str]) -> Callable[[], Any]:
    """What looks for credentials in botocore's order, without loading more of botocore than that takes."""
    if environment.get("AWS_ACCESS_KEY_ID"):
        return lambda: EnvProvider().load()
    if environment.get("AWS_LAMBDA_FUNCTION_NAME") and environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return lambda: ContainerProvider().load()  # under SnapStart; a function has no profiles
    session = import_module("botocore.session")  # here and not in the thread, so that nobody meets a half-loaded one
    return lambda: session.Session().get_credentials()


def _keys(credentials: Any) -> _Keys | None:
    """What botocore has found, fetched by now if that took a network.

    Raises:
        Exception: Whatever the place where they come from is good for.
    """
    if credentials is None:
        return None
    frozen = credentials.get_frozen_credentials()
    for name in ("access_key", "secret_key", "token"):
        value = getattr(frozen, name) or ""
        if (value or name != "token") and not re.fullmatch(r"[!-~]+", value):
            raise _Malformed(f"the {name} from {credentials.method} is empty, or has a character in it that none has")
    # Nothing that is public tells when they expire.
    expiry = credentials._expiry_time if isinstance(credentials, RefreshableCredentials) else None  # noqa: SLF001
    return _Keys(frozen, credentials.method, None if expiry is None else expiry.timestamp())


def _told(error: Exception) -> str:
    """What may be said of an error: of most no more than what it is, since it may quote the answer with the secrets."""
    if isinstance(error, _Malformed | PartialCredentialsError | ProfileNotFound | SSOError):
        return str(error).rstrip(".")
    where = error.kwargs.get("provider") if isinstance(error, BotoCoreError) else None
    return f"a {type(error).__name__}" + (f" from {where}" if where else "")
