"""Where credentials come from, and when: before they expire, in a thread, and never while somebody waits."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING

import pytest
import snapshot_restore_py
from awslambdaric.lambda_runtime_hooks_runner import run_after_restore
from botocore.credentials import Credentials

from emitter import Emitter, NetworkError, sigv4
from emitter.clocks import Clocks
from emitter.errors import CredentialsError
from emitter.sigv4 import REFRESH_WINDOW, SigV4
from tests.scripted_peer import PATIENCE
from tests.sigv4.servers import CredentialsServer
from tests.sigv4.verifier import verify

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write"
HEADERS = {"Host": "aps-workspaces.eu-central-1.amazonaws.com", "Content-Type": "application/x-protobuf"}
LIFE = 3600.0
"""Seconds that credentials last, unless a test says otherwise."""


class Time:
    """Time that passes only when a test says so; it begins now, since botocore looks at the real wall."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Time:
    return Time()


@pytest.fixture
def restored(monkeypatch) -> Callable[[], None]:
    """Calls what was asked to be called after a restore, by the runtime client itself."""
    monkeypatch.setattr(snapshot_restore_py, "_after_restore_registry", [])
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    return run_after_restore


@pytest.fixture
def in_container(container, wall, monkeypatch) -> CredentialsServer:
    """A function under SnapStart: its credentials last for an hour."""
    for name, value in container.environment.items():
        monkeypatch.setenv(name, value)
    container.expires = wall.now + LIFE
    return container


def made(wall: Time, **more) -> SigV4:
    """A signer as an emitter has it."""
    signer = SigV4(clocks=Clocks(wall, wall), **more)
    signer.check(URL)
    return signer


def signed_by(signer: SigV4, wall: Time, *accounts) -> str:
    """The access key that has signed, after its signature was verified."""
    added = signer.sign("POST", URL, HEADERS, b"body")
    fields = [*HEADERS.items(), *added.items()]
    verify(
        "POST",
        "/workspaces/ws-1/api/v1/remote_write",
        fields,
        b"body",
        accounts=accounts,
        service="aps",
        region="eu-central-1",
        now=wall.now,
    )
    return added["Authorization"].partition("Credential=")[2].partition("/")[0]


def refusal(signer: SigV4) -> str:
    with pytest.raises(CredentialsError) as raised:
        signer.sign("POST", URL, HEADERS, b"body")
    return str(raised.value)


def come_by(signer: SigV4) -> None:
    """Sign, as a flush does, and find credentials or none: whoever fetches them may be quick."""
    with contextlib.suppress(CredentialsError):
        signer.sign("POST", URL, HEADERS, b"body")


class TestStatic:
    """Those of an execution role, which last as long as its sandbox."""

    def test_a_function_signs_with_the_credentials_of_its_role(self, monkeypatch, wall):
        """Lambda puts them into the environment of every sandbox that is not restored from a snapshot."""
        account = CredentialsServer.account(7)
        for name, value in zip(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"), account, strict=True):
            monkeypatch.setenv(f"AWS_{name}", value)
        signer = made(wall)
        wall.now += 10 * 86_400

        assert signed_by(signer, wall, account) == "ASIA7"

    def test_a_profile_is_found_where_boto3_finds_it(self, monkeypatch, wall, tmp_path):
        """A developer runs the same function at home."""
        (tmp_path / "credentials").write_text("[dev]\naws_access_key_id = ASIA7\naws_secret_access_key = secret-7\n")
        monkeypatch.setenv("AWS_PROFILE", "dev")

        assert signed_by(made(wall), wall, CredentialsServer.account(7)._replace(token=None)) == "ASIA7"

    def test_a_program_that_gives_credentials_is_run(self, monkeypatch, wall, tmp_path):
        """What single sign-on and other tools use; botocore runs it, as for any other client."""
        program = tmp_path / "give"
        program.write_text(
            '#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "ASIA7", "SecretAccessKey": "secret-7"}\'\n'
        )
        program.chmod(0o700)
        (tmp_path / "config").write_text(f"[profile dev]\ncredential_process = {program}\n")
        monkeypatch.setenv("AWS_PROFILE", "dev")
        signer = made(wall, wait=PATIENCE)

        assert signed_by(signer, wall, CredentialsServer.account(7)._replace(token=None)) == "ASIA7"

    def test_without_any_the_error_says_what_was_expected(self, wall):
        """It travels in `Flush.error`, as all that the network does, and names itself in the counts."""
        signer = made(wall)

        assert refusal(signer) == (
            "there are no AWS credentials to sign with: none were found; expected those of the function's execution "
            "role, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile that AWS_PROFILE names; the logger "
            "'botocore' tells where it looks"
        )
        assert issubclass(CredentialsError, NetworkError)
        assert CredentialsError.reason == "credentials"

    @pytest.mark.parametrize(
        ("environment", "why"),
        [
            ({"AWS_ACCESS_KEY_ID": "ASIA7"}, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY; exp"),
            ({"AWS_PROFILE": "dev"}, "The config profile (dev) could not be found; expected"),
            (
                {"AWS_ACCESS_KEY_ID": "ASIA7", "AWS_SECRET_ACCESS_KEY": "secret-7\n"},
                "the secret_key from env is empty, or has a character in it that none has; expected",
            ),
            (
                {"AWS_ACCESS_KEY_ID": "ASIA7", "AWS_SECRET_ACCESS_KEY": "secret-7", "AWS_SESSION_TOKEN": "a\r\nb: c"},
                "the token from env is empty, or has a character in it that none has; expected",
            ),
        ],
    )
    def test_half_of_them_or_malformed_ones_are_called_so(self, environment, why, monkeypatch, wall):
        """A line break that was copied along would go into a header field; the error shows nothing of a secret."""
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        text = refusal(made(wall))

        assert text.startswith(f"there are no AWS credentials to sign with: {why}")
        assert "secret-7" not in text


class TestShortLived:
    """Those that a server gives away, as under SnapStart and in containers."""

    def test_they_are_there_once_the_signer_is_made(self, in_container, wall):
        """INIT is when there is time for it."""
        signer = made(wall, wait=PATIENCE)

        assert signed_by(signer, wall, in_container.latest) == "ASIA1"
        assert in_container.asked == 1

    def test_they_are_fetched_anew_before_they_expire(self, in_container, wall, fetched):
        """The signature that finds them about to expire still has the old ones, and waits for nothing."""
        signer = made(wall, wait=PATIENCE)
        wall.now += LIFE - REFRESH_WINDOW
        assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"
        assert in_container.asked == 1  # not a second too early

        wall.now += 1
        in_container.expires = wall.now + LIFE
        in_container.answering.clear()
        assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"
        in_container.answering.set()
        fetched()

        assert signed_by(signer, wall, in_container.account(2)) == "ASIA2"
        assert in_container.asked == 2

    def test_one_thread_fetches_however_many_sign(self, in_container, wall, fetched):
        """Every flush of every emitter comes by while they are about to expire."""
        signer = made(wall, wait=PATIENCE)
        in_container.arrived.clear()
        in_container.answering.clear()
        wall.now += LIFE - 60
        in_container.expires = wall.now + LIFE
        for _ in range(50):
            assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"
        assert in_container.arrived.wait(PATIENCE)
        in_container.answering.set()
        fetched()

        assert in_container.asked == 2

    def test_a_slow_server_is_waited_for_by_nobody(self, in_container, wall, fetched):
        """Not while the signer is made, if so asked, and never by a signature: the next ones find what has come."""
        in_container.answering.clear()
        signer = made(wall, wait=0)
        assert in_container.arrived.wait(PATIENCE)
        assert refusal(signer) == (
            "there are no AWS credentials to sign with: they are being fetched, and the next report finds them"
        )

        in_container.answering.set()
        fetched()

        assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"

    def test_making_a_signer_waits_no_longer_than_it_may(self, in_container, wall, fetched):
        """A sandbox whose server hangs starts all the same."""
        in_container.answering.clear()
        signer = made(wall, wait=0.05)  # what is waited for never comes: this ends by the limit alone

        assert "being fetched" in refusal(signer)
        in_container.answering.set()
        fetched()

    def test_old_ones_are_used_until_they_expire_if_no_new_ones_can_be_had(
        self, in_container, wall, fetched, monkeypatch
    ):
        """A server that fails for a minute costs nothing; one that fails for longer is said to have."""
        monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)  # between its own three tries
        signer = made(wall, wait=PATIENCE)
        in_container.refusing = True
        wall.now += LIFE - 60
        assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"
        fetched()
        wall.now += 59
        assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"
        fetched()
        wall.now += 61
        text = refusal(signer)
        fetched()

        assert text.startswith(
            "the AWS credentials from container-role expired 60 s ago: a CredentialRetrievalError from container-role; "
            "expected those of the function's execution role"
        )
        assert "secret-0" not in text  # which the server has put into its answer

        in_container.refusing = False
        wall.now += 61  # longer than any back-off
        in_container.expires = wall.now + LIFE
        come_by(signer)
        fetched()

        assert signed_by(signer, wall, in_container.latest) == in_container.latest.access_key

    def test_a_server_that_is_gone_is_not_asked_by_every_flush(self, wall, fetched):
        """After a failure the next try has to wait, longer each time."""
        tries = []

        def gone() -> None:
            tries.append(wall.now)
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                socket.create_connection(nobody.getsockname(), PATIENCE)  # bound, and does not listen

        signer = made(wall, credentials=gone, wait=PATIENCE)
        for _ in range(100):
            assert "a ConnectionRefusedError; expected" in refusal(signer)
        assert len(tries) == 1

        wall.now += 61
        come_by(signer)
        fetched()
        assert len(tries) == 2

    def test_a_server_without_newer_ones_is_not_asked_by_every_flush(self, in_container, wall, fetched):
        """Some give the same away until shortly before the end."""
        signer = made(wall, wait=PATIENCE)
        wall.now += LIFE - 60  # and it goes on giving those that expire then
        for _ in range(20):
            signer.sign("POST", URL, HEADERS, b"body")
            fetched()
        assert in_container.asked == 2
        wall.now += 61
        text = refusal(signer)
        fetched()

        assert text == (
            "the AWS credentials from container-role expired 1 s ago: those who give them away had none that last for "
            "longer, and are asked again"
        )

    def test_no_secret_is_logged_while_credentials_are_fetched(self, in_container, wall, caplog):
        """The lines of botocore included, at the level at which functions run."""
        caplog.set_level(logging.INFO)
        signer = made(wall, wait=PATIENCE)
        signer.sign("POST", URL, HEADERS, b"body")

        for secret in (*in_container.latest[1:], in_container.token):
            assert secret not in caplog.text + repr(vars(signer))

    def test_nobody_is_asked_for_what_is_not_needed(self, in_container, wall, monkeypatch):
        """A test that imports a function whose emitter is disabled reaches for no network, and waits for none."""
        signer = SigV4(clocks=Clocks(wall, wall))
        monkeypatch.setenv("EMITTER_DISABLED", "true")
        Emitter(URL, encoder="remote-write", signer=signer)
        assert in_container.asked == 0

        monkeypatch.delenv("EMITTER_DISABLED")
        Emitter(URL, encoder="remote-write", signer=signer)
        assert in_container.asked == 1

        Emitter(URL.replace("ws-1", "ws-2"), encoder="remote-write", signer=signer)
        assert in_container.asked == 1  # what it has is good for any URL

    def test_users_may_say_where_credentials_come_from(self, wall, fetched):
        """Those of another account, say, by a role that is assumed with boto3."""
        signer = made(wall, credentials=lambda: Credentials("ASIA1", "secret-1", "session-1"), wait=PATIENCE)

        assert signed_by(signer, wall, CredentialsServer.account(1)) == "ASIA1"


class TestRestore:
    """SnapStart: one INIT, then a snapshot, then sandboxes that go on from it hours later."""

    def test_credentials_of_init_are_replaced_in_the_restore(self, in_container, wall, restored, fetched):
        """They have expired long since, and wall time jumps; the first report is signed by new ones."""
        signer = made(wall, wait=PATIENCE)
        assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"
        wall.now += 14 * 86_400
        in_container.expires = wall.now + LIFE
        restored()

        assert signed_by(signer, wall, in_container.account(2)) == "ASIA2"
        assert in_container.asked == 2

    def test_what_was_being_fetched_before_the_snapshot_does_not_come_too_late(
        self, in_container, wall, restored, fetched
    ):
        """A thread goes on in each restored sandbox where the snapshot has caught it."""
        answers = []
        hold = threading.Event()

        def give() -> Credentials:
            number = len(answers) + 1
            answers.append(number)
            if number == 1:
                assert hold.wait(PATIENCE)
            return Credentials(*in_container.account(number))

        signer = made(wall, credentials=give, wait=0)
        signer._wait = PATIENCE
        restored()
        hold.set()
        fetched()

        assert signed_by(signer, wall, in_container.account(2)) == "ASIA2"

    def test_a_signer_without_an_emitter_asks_nobody_in_the_restore(self, in_container, wall, restored):
        """It would hold up the restore for nothing."""
        signer = SigV4(clocks=Clocks(wall, wall))
        restored()

        assert in_container.asked == 0
        assert signed_by(signer, wall, in_container.account(1)) == "ASIA1"

    def test_a_signer_that_nobody_has_any_more_is_not_kept_for_a_restore(self, wall, restored):
        """The runtime keeps its hooks for ever."""
        signer = made(wall, credentials=lambda: Credentials("a", "b"), wait=PATIENCE)
        gone = weakref.ref(signer)
        del signer
        gc.collect()
        restored()

        assert gone() is None

    def test_without_snapstart_nothing_is_registered(self, wall, restored, monkeypatch):
        """Any other sandbox is never restored."""
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        made(wall, credentials=lambda: Credentials("a", "b"), wait=PATIENCE)

        assert snapshot_restore_py.get_after_restore() == []


class TestFork:
    """Managed instances: forked workers go on with what their parent has made."""

    def test_a_child_signs_with_what_it_inherits_and_fetches_for_itself(self, in_container, wall, fetched):
        """Even if a thread of the parent, which does not exist in the child, was in the middle of it."""
        signer = made(wall, wait=PATIENCE)
        in_container.arrived.clear()
        in_container.answering.clear()
        wall.now += LIFE - 60
        in_container.expires = wall.now + LIFE
        signer.sign("POST", URL, HEADERS, b"body")
        assert in_container.arrived.wait(PATIENCE)  # so the parent's thread holds its lock
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of what this is about
            child = os.fork()
        if child == 0:
            said = b"failed"
            try:
                first = signed_by(signer, wall, in_container.account(1))
                os.write(writer, b"signed\n")
                fetched()  # ends as soon as the parent lets the server answer
                second = signed_by(signer, wall, in_container.account(2), in_container.account(3))
                said = f"{first} {second != first}".encode()
            finally:
                os.write(writer, said)
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as said:
            assert said.readline() == b"signed\n"
            in_container.answering.set()
            assert said.read() == b"ASIA1 True"
        os.waitpid(child, 0)
        fetched()


def test_a_thread_that_cannot_be_started_is_a_failure_like_any_other(wall, monkeypatch, fetched):
    """Out of threads, or at the very end of the process, when Python starts no more of them."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sigv4.threading.Thread, "start", refused)
    signer = made(wall, credentials=lambda: Credentials("a", "b"))

    assert refusal(signer) == (
        "there are no AWS credentials to sign with: no thread could be started to fetch them (can't start new thread)"
    )
    monkeypatch.undo()
    wall.now += 61  # longer than any back-off
    come_by(signer)
    fetched()
    assert signer.sign("POST", URL, HEADERS, b"")
