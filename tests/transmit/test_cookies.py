from __future__ import annotations

import pytest

from emitter.errors import ConfigurationError
from emitter.transmit.cookies import CookieStore

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT
A_SECOND_AGO, IN_A_SECOND = "Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"


def store(*names: str, target: str = "/v1/metrics", secure: bool = True) -> CookieStore:
    """A store that also learns these."""
    return CookieStore(names, target=target, secure=secure)


def answer(*lines: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that sets these cookies."""
    fields = [(b"set-cookie", line.encode("latin-1")) for line in lines]
    return [(b"server", b"awselb/2.0"), *fields, (b"content-length", b"0")]


def after(*lines: str, now: float = NOW, **options) -> bytes:
    """What goes back after one answer set these cookies, `a` and `b` listed."""
    cookies = store("a", "b", **options)
    cookies.learn(answer(*lines), NOW)
    assert cookies.dropped == 0
    return cookies.header(now)


def test_the_cookies_of_a_load_balancer_go_back_as_they_came() -> None:
    """As AWS's Application Load Balancer sets them. Nothing but name and value goes back: RFC 6265, 4.2."""
    cookies = store()
    before = cookies.header(NOW)
    cookies.learn(
        answer(
            "AWSALB=gX3/k+w==; Expires=Sun, 13 Nov 1994 08:49:37 GMT; Path=/",
            "AWSALBCORS=gX3/k+w==; Expires=Sun, 13 Nov 1994 08:49:37 GMT; Path=/; SameSite=None; Secure",
            "AWSALBAPP-0=_remove_; Expires=Sun, 13 Nov 1994 08:49:37 GMT; Path=/",
        ),
        NOW,
    )

    assert before == b""
    assert cookies.header(NOW) == b"Cookie: AWSALB=gX3/k+w==; AWSALBCORS=gX3/k+w==; AWSALBAPP-0=_remove_\r\n"


def test_what_is_not_listed_is_not_learned() -> None:
    """A session, a tracker: no business of ours, and no fault of the server either. Cookie names are case-sensitive."""
    cookies = store()
    cookies.learn(answer("session=1", "awsalb=1", "AWSALB2=1", "AWSALBAPP=1", "SERVERID=s1", "x=\x01"), NOW)

    assert cookies.header(NOW) == b""
    assert cookies.dropped == 0


def test_the_user_lists_further_names_and_beginnings() -> None:
    """On top of the defaults."""
    cookies = store("SERVERID", "route-*")
    cookies.learn(answer("SERVERID=s1", "SERVERID2=x", "route-=r", "route-a=ra", "route=x", "AWSALB=y"), NOW)

    assert cookies.header(NOW) == b"Cookie: SERVERID=s1; route-=r; route-a=ra; AWSALB=y\r\n"


def test_a_refreshed_cookie_keeps_its_place() -> None:
    """The last one wins; load balancers refresh theirs with every answer."""
    cookies = store("a", "b")
    cookies.learn(answer("a=1", "b=1"), NOW)
    first = cookies.header(NOW)
    cookies.learn(answer("a=2"), NOW)
    cookies.learn(answer("a=3"), NOW)

    assert first == b"Cookie: a=1; b=1\r\n"
    assert cookies.header(NOW) == b"Cookie: a=3; b=1\r\n"


def test_other_fields_set_no_cookies() -> None:
    """Only `Set-Cookie` does."""
    cookies = store("a")
    cookies.learn([(b"cookie", b"a=1"), (b"set-cookie2", b"a=1"), (b"x-set-cookie", b"a=1")], NOW)

    assert cookies.header(NOW) == b""


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("a=1;Path=/", b"Cookie: a=1\r\n"),
        (" \ta \t=\t 1 \t; Path=/", b"Cookie: a=1\r\n"),
        ("a=", b"Cookie: a=\r\n"),
        ('a="1"', b'Cookie: a="1"\r\n'),
        ("a=1=2==", b"Cookie: a=1=2==\r\n"),
        ("a=1;;; ;=;=x;unknown;HttpOnly;SameSite=Lax;Priority=High", b"Cookie: a=1\r\n"),
        ("a", b""),
        ("a; b=1", b""),
        ("=1", b""),
        ("=a=1", b""),
        ("", b""),
    ],
)
def test_a_cookie_is_taken_apart_as_browsers_do(line: str, field: bytes) -> None:
    """RFC 6265, 5.2."""
    assert after(line) == field


@pytest.mark.parametrize(
    "attributes",
    ["Max-Age=1", f"Expires={IN_A_SECOND}", "max-age = 01 ", f"EXPIRES={IN_A_SECOND.replace(' Nov ', '-nov-')}"],
)
def test_a_cookie_ends_when_it_says(attributes: str) -> None:
    """RFC 6265, 5.3. A field that was made before is made anew."""
    cookies = store("a", "b")
    cookies.learn(answer(f"a=1; {attributes}", "b=1"), NOW)

    assert cookies.header(NOW + 0.9) == b"Cookie: a=1; b=1\r\n"
    assert cookies.header(NOW + 1) == b"Cookie: b=1\r\n"
    assert cookies.header(NOW) == b"Cookie: b=1\r\n"  # a clock that goes backwards brings nothing back


@pytest.mark.parametrize(
    "attributes",
    [f"Expires={A_SECOND_AGO}", "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Max-Age=0", "Max-Age=-1", "Max-Age=000"],
)
def test_a_cookie_is_deleted_by_one_that_has_ended(attributes: str) -> None:
    """What its value is does not matter, and what is not there need not be deleted."""
    assert after(f"a=1; {attributes}") == b""
    assert after("a=1", "b=1", f"a=; {attributes}") == b"Cookie: b=1\r\n"
    assert after("a=1", "b=1", f'a=not "a" value; {attributes}') == b"Cookie: b=1\r\n"


@pytest.mark.parametrize(
    ("attributes", "lives"),
    [
        (f"Max-Age=1; Expires={A_SECOND_AGO}", True),
        (f"Expires={A_SECOND_AGO}; Max-Age=1", True),
        (f"Expires={IN_A_SECOND}; Max-Age=0", False),
        ("Max-Age=0; Max-Age=1", True),
        ("Max-Age=1; Max-Age=0", False),
        (f"Expires={A_SECOND_AGO}; Expires={IN_A_SECOND}", True),
        (f"Expires={IN_A_SECOND}; Expires={A_SECOND_AGO}", False),
        (f"Expires={A_SECOND_AGO}; Expires=soon", False),
        ("Max-Age=0; Max-Age=soon", False),
        ("Expires=soon", True),
        ("Expires", True),
        ("Max-Age", True),
        ("Max-Age=-", True),
        ("Max-Age=+0", True),
        ("Max-Age=0.0", True),
        ("Max-Age=0x0", True),
        ("Max-Age=" + 400 * "0" + "1", True),
        ("Max-Age=" + 4000 * "9", True),
        ("Max-Age=-" + 4000 * "9", False),
    ],
)
def test_of_several_ends_the_right_one_counts(attributes: str, *, lives: bool) -> None:
    """RFC 6265, 5.3: `Max-Age` before `Expires`, then the last; 5.2: what makes no sense does not count."""
    assert after(f"a=1; {attributes}") == (b"Cookie: a=1\r\n" if lives else b"")


@pytest.mark.parametrize(
    ("path", "target", "goes"),
    [
        ("/", "/v1/metrics", True),
        ("/v1", "/v1/metrics", True),
        ("/v1/", "/v1/metrics", True),
        ("/v1/metrics", "/v1/metrics", True),
        ("/v1/metrics/", "/v1/metrics", False),
        ("/v1/met", "/v1/metrics", False),
        ("/V1", "/v1/metrics", False),
        ("/v2", "/v1/metrics", False),
        ("", "/v1/metrics", True),
        ("v2", "/v1/metrics", True),
        ("/", "/", True),
        ("/a", "/?b=/a", False),
        ("/a", "/a?b", True),
        ("/a", "/a/?b", True),
    ],
)
def test_a_cookie_goes_where_its_path_says(path: str, target: str, *, goes: bool) -> None:
    """RFC 6265, 5.1.4. Without a path that begins with a slash, a cookie belongs where it was set."""
    assert after(f"a=1; Path={path}", target=target) == (b"Cookie: a=1\r\n" if goes else b"")


def test_cookies_of_one_name_and_several_paths_live_side_by_side() -> None:
    """RFC 6265, 5.3 and 5.4: each is replaced and deleted on its own, and the longer path goes first."""
    cookies = store("a", "b")
    cookies.learn(answer("a=root; Path=/", "b=default", "a=deep; Path=/v1/metrics", "a=2; Path=/v1"), NOW)
    all_of_them = cookies.header(NOW)
    cookies.learn(answer("a=; Path=/v1; Max-Age=0", "a=root2; Path=/"), NOW)

    assert all_of_them == b"Cookie: a=deep; b=default; a=2; a=root\r\n"
    assert cookies.header(NOW) == b"Cookie: a=deep; b=default; a=root2\r\n"


@pytest.mark.parametrize(("target", "path"), [("/", "/"), ("/a", "/"), ("/a?b/c", "/"), ("/a/b", "/a"), ("/a/", "/a")])
def test_without_a_path_it_is_that_of_the_target_up_to_the_last_slash(target: str, path: str) -> None:
    """RFC 6265, 5.1.4. So one that names this path is the same cookie."""
    assert after("a=1", f"a=2; Path={path}", target=target) == b"Cookie: a=2\r\n"


def test_a_secure_cookie_goes_over_tls_only() -> None:
    """On an answer over plain HTTP it makes no sense, and leaves what is there as it is."""
    assert after("a=1; Secure", secure=True) == b"Cookie: a=1\r\n"
    assert after("a=1; secure=no", secure=False) == b""
    assert after("a=1", "a=2; Secure", secure=False) == b"Cookie: a=1\r\n"


@pytest.mark.parametrize("domain", ["metrics.example.com", ".example.com", "elsewhere.example", "", "com"])
def test_a_domain_is_not_looked_at(domain: str) -> None:
    """A cookie only ever goes back to the very host that set it."""
    assert after(f"a=1; Domain={domain}") == b"Cookie: a=1\r\n"


def test_everything_can_be_forgotten() -> None:
    """A new sandbox is nobody's regular yet. It can learn again."""
    cookies = store("a")
    cookies.learn(answer("a=1", "a=\x01"), NOW)
    before = cookies.header(NOW)
    cookies.clear()
    cleared = cookies.header(NOW)
    cookies.learn(answer("a=2"), NOW)

    assert (before, cleared, cookies.header(NOW)) == (b"Cookie: a=1\r\n", b"", b"Cookie: a=2\r\n")
    assert cookies.dropped == 0


def test_the_field_is_made_once() -> None:
    """It is on the way of each flush: the same object comes back until something was learned."""
    cookies = store("a")
    cookies.learn(answer("a=1; Max-Age=10"), NOW)
    first = cookies.header(NOW)
    cookies.learn(answer("session=1"), NOW)

    assert cookies.header(NOW + 9) is first


@pytest.mark.parametrize("names", ["SERVERID", b"SERVERID", None, 5])
def test_names_that_are_no_list_are_refused(names: object) -> None:
    """A string would be taken letter by letter."""
    with pytest.raises(ConfigurationError) as caught:
        CookieStore(names, target="/", secure=False)

    kind = type(names).__name__
    assert str(caught.value) == f"sticky_cookies is a {kind}; expected a list of cookie names, as in ['SERVERID']"


@pytest.mark.parametrize("name", ["", "*", "a*b", "**", "a**", "a b", "a;", "a=b", "a,b", "é", "a\r\n", "a\0", "(a)"])
def test_a_name_that_is_none_of_a_cookie_is_refused(name: str) -> None:
    """RFC 6265, 4.1.1: a token. A star alone would learn everything."""
    with pytest.raises(ConfigurationError) as caught:
        store("SERVERID", name)

    assert str(caught.value).startswith(f"the name {name!r} in sticky_cookies is not one of a cookie; expected letters")


@pytest.mark.parametrize("name", [None, b"SERVERID", 5, ["SERVERID"]])
def test_a_name_that_is_no_string_is_refused(name: object) -> None:
    """With its type."""
    with pytest.raises(ConfigurationError) as caught:
        CookieStore([name], target="/", secure=False)

    assert str(caught.value) == f"a name in sticky_cookies is a {type(name).__name__}; expected a string"


@pytest.mark.parametrize("names", [("a",), {"a"}, {"a": 1}, iter(["a"]), (name for name in "a")])
def test_any_collection_of_names_will_do(names: object) -> None:
    """Also one that can be gone through only once."""
    cookies = CookieStore(names, target="/", secure=False)
    cookies.learn(answer("a=1"), NOW)

    assert cookies.header(NOW) == b"Cookie: a=1\r\n"
