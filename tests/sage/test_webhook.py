"""A webhook, against receivers that are slow, fail, hang up, lead elsewhere, drip, or never answer."""

from __future__ import annotations

import dataclasses
import http.client
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import OptionError
from regime.alerts import Alert, Severity
from sage.sinks import Delivery
from sage.webhook import Address, Patience, Webhook
from tests.sage.receivers import Receiver, receiver

SECRET = "s3cr3t-of-mine"
QUICK = Patience(timeout_s=0.3, attempts=3, pause_s=0.01, pause_max_s=0.02, leave_s=5.0)
RAISED = Alert(5, "machine.memory", Severity.HIGH, True, "90 %")


def address(url: str, **more: str) -> Address:
    return Address.from_environment("HOOK", {"HOOK": url} | {f"HOOK_{key}": value for key, value in more.items()})


def told(server: Receiver, alerts: int = 1, patience: Patience = QUICK) -> Delivery:
    """So many alerts, one after the other, and what became of them."""
    hook = Webhook(address(server.url), patience)
    for _ in range(alerts):
        hook.tell(RAISED)
    wait_for(lambda: hook._sent + hook._failed >= alerts)
    return hook.close()


def wait_for(done: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.005)


def test_an_alert_arrives_as_plain_json() -> None:
    with receiver("204") as server:
        hook = Webhook(address(server.url + f"/{SECRET}?key={SECRET}"), QUICK, clock=lambda: 1.5)
        hook.tell(RAISED)
        wait_for(lambda: len(server.bodies) == 1)
        assert hook.close() == Delivery(f"webhook http://127.0.0.1:{server.server_address[1]}/…", 1)
    (body,) = server.bodies
    assert body.pop("id")
    assert body == {
        "time": "1970-01-01T00:00:01.500+00:00", "state": "raised", "name": "machine.memory", "severity": "HIGH",
        "detail": "90 %", "ts_ns": 5, "text": "SAGE: HIGH machine.memory raised: 90 %",
    }  # fmt: skip
    path, head = server.heads[0]
    assert path == f"/hook/{SECRET}?key={SECRET}"
    assert head["Content-Type"] == "application/json"
    assert "Authorization" not in head


def test_alerts_arrive_in_their_order_and_are_told_apart() -> None:
    with receiver("200") as server:
        assert told(server, alerts=20) == Delivery(f"webhook {address(server.url)}", 20)
    numbers = [int(str(body["id"]).rpartition("-")[2]) for body in server.bodies]
    assert numbers == list(range(1, 21))


@pytest.mark.parametrize("word", ["500", "503", "429", "408", "close", "nonsense", "silent", "drip", "drip-headers"])
def test_what_may_pass_is_tried_again_with_the_same_id(word: str) -> None:
    with receiver(word, word, "200") as server:
        found = told(server)
    assert (found.sent, found.failed, found.error) == (1, 0, "")
    assert len({body["id"] for body in server.bodies}) == 1
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("word", "error"),
    [("500", "HTTP 500"), ("silent", "no answer in time"), ("drip", "no answer in time"), ("close", "Disconnected")],
)
def test_attempts_end(word: str, error: str) -> None:
    with receiver(word) as server:
        found = told(server)
    assert (found.sent, found.failed, found.dropped) == (0, 1, 0)
    assert error in found.error
    assert len(server.bodies) == QUICK.attempts


@pytest.mark.parametrize("word", ["400", "401", "404"])
def test_what_will_not_pass_is_tried_once(word: str) -> None:
    with receiver(word) as server:
        found = told(server)
    assert (found.failed, len(server.bodies), found.error) == (1, 1, f"HTTP {word}")


@pytest.mark.parametrize("word", ["301", "302", "307", "308"])
def test_redirects_are_not_followed(word: str) -> None:
    with receiver(word) as server:
        found = told(server)
    assert "redirects are not followed" in found.error
    assert [path for path, _ in server.heads] == ["/hook"]


def test_an_answer_without_end_is_not_read() -> None:
    with receiver("endless") as server:
        assert told(server).sent == 1


@pytest.mark.parametrize(
    ("url", "where", "shown"),
    [
        ("http://[2001:db8::17]/hook", ("2001:db8::17", 80), "http://[2001:db8::17]/…"),
        ("https://[2001:db8::abcd]/hook", ("2001:db8::abcd", 443), "https://[2001:db8::abcd]/…"),
        ("http://[2001:db8::1]:8080/hook", ("2001:db8::1", 8080), "http://[2001:db8::1]:8080/…"),
        ("https://hooks.example/hook", ("hooks.example", 443), "https://hooks.example/…"),
    ],
)
def test_an_address_without_a_port_is_that_of_its_scheme(
    url: str, where: tuple[str, int], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    hook = Webhook(address(url), dataclasses.replace(QUICK, attempts=1))
    hook.tell(RAISED)
    wait_for(lambda: hook._failed == 1)
    assert hook.close() == Delivery(f"webhook {shown}", 0, 1, 0, "ConnectionRefusedError")
    assert asked == [where]


def test_nobody_there_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        hook = Webhook(address(f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}"), QUICK)
        hook.tell(RAISED)
        wait_for(lambda: hook._failed == 1)
        assert hook.close().error == "ConnectionRefusedError: Connection refused"


def test_what_nobody_takes_waits_within_bounds_and_the_oldest_go() -> None:
    patience = Patience(timeout_s=30.0, attempts=3, room=10, leave_s=0.05)
    with receiver("silent") as server:
        hook = Webhook(address(server.url), patience)
        hook.tell(RAISED)
        assert server.asked.acquire(timeout=20)
        for _ in range(5_000):
            hook.tell(RAISED)
        assert len(hook._waiting) == patience.room
        found = hook.close()
    assert (found.sent, found.failed, found.dropped) == (0, 0, 5_001)


def test_at_the_end_each_that_is_left_gets_one_chance() -> None:
    patience = Patience(timeout_s=5.0, attempts=5, pause_s=1_000.0, pause_max_s=1_000.0)
    with receiver("500", "200") as server:
        hook = Webhook(address(server.url), patience)
        for _ in range(3):
            hook.tell(RAISED)
        assert server.asked.acquire(timeout=20)
        time.sleep(0.2)  # by now it pauses, for longer than anybody waits
        found = hook.close()
    assert found.sent + found.failed == 3
    assert found.failed <= 1
    assert found.dropped == 0


def test_the_thread_ends_when_there_is_nothing_to_do() -> None:
    hook = Webhook(address("http://127.0.0.1:9/"), QUICK)
    assert hook.close() == Delivery("webhook http://127.0.0.1:9/…", 0)
    assert not hook._thread.is_alive()


def test_a_bearer_token_and_a_password_go_into_the_header() -> None:
    with receiver("200") as server:
        plain = address(server.url, TOKEN=SECRET)
        named = address(server.url.replace("//", "//me:p%40ss@"))
        for one in (plain, named):
            hook = Webhook(one, QUICK)
            hook.tell(RAISED)
            wait_for(lambda hook=hook: hook._sent == 1)  # type: ignore[misc]
            hook.close()
    assert [head["Authorization"] for _, head in server.heads] == [f"Bearer {SECRET}", "Basic bWU6cEBzcw=="]


def test_address_and_token_may_lie_in_files(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://hooks.example:8443/x\n")
    (tmp_path / "token").write_text(f"{SECRET}\n")
    found = Address.from_environment(
        "HOOK", {"HOOK_FILE": str(tmp_path / "url"), "HOOK_TOKEN_FILE": str(tmp_path / "token")}
    )
    assert (found.secure, found.host, found.port, found.target) == (True, "hooks.example", 8443, "/x")
    assert found.authorization == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("name", "environ"),
    [
        (f"https://hooks.example/{SECRET}", {}),
        ("HOOK", {}),
        ("HOOK", {"HOOK": " "}),
        ("HOOK", {"HOOK": SECRET}),
        ("HOOK", {"HOOK": f"ftp://{SECRET}/x"}),
        ("HOOK", {"HOOK": f"https:///{SECRET}"}),
        ("HOOK", {"HOOK": f"https://h/{SECRET}\r\nX-Evil: 1"}),
        ("HOOK", {"HOOK": f"https://h/a b{SECRET}"}),
        ("HOOK", {"HOOK": f"https://[{SECRET}/"}),
        ("HOOK", {"HOOK": f"https://h:{SECRET}/"}),
        ("HOOK", {"HOOK": "https://h/", "HOOK_TOKEN": f"{SECRET}\nX-Evil: 1"}),
        ("HOOK", {"HOOK": f"https://me:{SECRET}@h/", "HOOK_TOKEN": SECRET}),
        ("HOOK", {"HOOK_FILE": "/nowhere/at/all"}),
    ],
)
def test_what_is_no_address_is_refused_and_not_shown(name: str, environ: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=r"HOOK|--webhook-url-env") as caught:
        Address.from_environment(name, environ)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in repr(caught.value.__cause__)


@pytest.mark.parametrize("word", ["500", "302", "close", "nonsense", "silent"])
def test_secrets_are_in_no_message_no_repr_and_no_log(word: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receiver(word) as server:
        secret = address(f"{server.url}/{SECRET}?key={SECRET}", TOKEN=SECRET)
        hook = Webhook(secret, QUICK)
        hook.tell(RAISED)
        wait_for(lambda: hook._failed == 1)
        found = hook.close()
    wait_for(lambda: bool(caplog.records))
    assert any(SECRET in head["Authorization"] for _, head in server.heads)
    shown = [repr(secret), str(secret), repr(hook), str(found), repr(found), repr(secret.__class__), caplog.text]
    assert not any(SECRET in text for text in shown)


def test_what_the_library_says_of_a_bad_request_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise http.client.InvalidURL(f"URL can't contain control characters: {SECRET}")

    with receiver("200") as server:
        monkeypatch.setattr(http.client.HTTPConnection, "request", refuse)
        hook = Webhook(address(server.url), QUICK)
        hook.tell(RAISED)
        wait_for(lambda: hook._failed == 1)
        assert hook.close().error == "InvalidURL"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody else signed, with its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not on PATH: posting over TLS was NOT tested")
    place = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", place, "-out", f"{place}.crt",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    place.write_text(place.read_text() + Path(f"{place}.crt").read_text())
    return place


@pytest.mark.parametrize("word", ["200", "silent", "drip"])
def test_it_posts_over_tls_and_is_as_impatient_there(
    word: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    with receiver(word, "200", certificate=certificate) as server:
        found = told(server)
    assert (found.sent, found.failed) == (1, 0)
    assert found.sink.startswith("webhook https://127.0.0.1:")


def test_a_receiver_that_cannot_prove_who_it_is_gets_nothing(certificate: Path) -> None:
    with receiver("200", certificate=certificate) as server:
        found = told(server)
    assert found.error.startswith("SSLCertVerificationError")
    assert server.bodies == []
