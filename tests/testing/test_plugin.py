"""The plugin as users load it: a pytest of its own, in a fresh directory."""

from __future__ import annotations

import importlib.util
import sys

import pytest

pytest_plugins = ["pytester"]

FUNCTION = """
from emitter import Emitter

metrics = Emitter(service="checkout")
orders = metrics.counter("orders")

@metrics.lambda_handler
def handler(event, context):
    orders.add(1, channel=event)
    return event
"""

TESTS = """
import checkout

def test_it(recorded):
    assert checkout.handler("web", None) == "web"
    recorded.assert_counter("orders", 1, channel="web")
    recorded.assert_total("orders", 1)

def test_it_again(recorded):
    recorded.assert_nothing_recorded()
    checkout.handler("app", None)
    recorded.assert_total("orders", 1)

def test_without_the_fixture():
    checkout.handler("web", None)
    assert checkout.metrics.stats.withheld
    assert not checkout.metrics.stats.flushes
"""

BY_OPTION = """
[pytest]
addopts = -p emitter.testing -p no:cacheprovider
filterwarnings = error
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

BARE = BY_OPTION.replace("-p emitter.testing ", "")


def test_one_line_of_configuration_is_enough(pytester):
    """A module that makes its emitter at its top can be imported, and each test begins at zero."""
    pytester.makeini(BY_OPTION)
    pytester.makepyfile(checkout=FUNCTION, test_checkout=TESTS)

    pytester.runpytest_subprocess().assert_outcomes(passed=3)


def test_without_that_line_nothing_is_switched_off(pytester):
    """The package is installed, and does nothing to those who did not ask: no entry point, no fixture."""
    pytester.makeini(BARE)
    pytester.makepyfile(checkout=FUNCTION, test_checkout=TESTS)
    result = pytester.runpytest_subprocess()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: no endpoint was given*"])


def test_a_conftest_may_name_the_plugin(pytester):
    """Also one that has imported a part of it before: there is no warning that it cannot be rewritten."""
    pytester.makeini(BARE)
    pytester.makeconftest(
        """
        from emitter.testing import LambdaContext, recording
        import emitter.testing.plugin

        pytest_plugins = ["emitter.testing"]
        """
    )
    pytester.makepyfile(checkout=FUNCTION, test_checkout=TESTS)

    pytester.runpytest_subprocess().assert_outcomes(passed=3)


def test_a_conftest_may_import_the_function(pytester):
    """The option is read before any conftest.py is."""
    pytester.makeini(BY_OPTION)
    pytester.makeconftest("import checkout")
    pytester.makepyfile(checkout=FUNCTION, test_checkout=TESTS)

    pytester.runpytest_subprocess().assert_outcomes(passed=3)


def test_a_fixture_for_every_test_is_another_line(pytester):
    """So that tests that do not look at metrics begin at zero too."""
    pytester.makeini(BY_OPTION + "usefixtures = recorded\n")
    pytester.makepyfile(
        checkout=FUNCTION,
        test_checkout="""
        import checkout

        def test_that():
            checkout.handler("web", None)
            assert checkout.metrics.stats.flushes == 1

        def test_again(recorded):
            recorded.assert_nothing_recorded()
            assert checkout.metrics.stats.flushes == 0
        """,
    )

    pytester.runpytest_subprocess().assert_outcomes(passed=2)


@pytest.mark.parametrize(("given", "seen"), [("false", "false"), ("true", "true"), ("", "true"), (None, "true")])
def test_what_the_environment_says_already_wins(pytester, monkeypatch, given, seen):
    """Whoever sets EMITTER_DISABLED=false has tests that really report; an empty variable says nothing."""
    if given is not None:
        monkeypatch.setenv("EMITTER_DISABLED", given)
    pytester.makeini(BY_OPTION)
    pytester.makepyfile(f"import os\n\ndef test_it():\n    assert os.environ['EMITTER_DISABLED'] == {seen!r}")

    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_environment_is_put_back_afterwards(pytester, monkeypatch):
    """A run inside another process leaves nothing behind."""
    monkeypatch.delenv("EMITTER_DISABLED", raising=False)
    pytester.makeini(BY_OPTION)
    pytester.makepyfile(
        test_inner="import os\n\ndef test_it():\n    assert os.environ['EMITTER_DISABLED'] == 'true'",
        test_outer="""
        import os, pytest

        def test_it(tmp_path):
            os.environ.pop("EMITTER_DISABLED", None)
            inner = os.path.join(os.path.dirname(__file__), "test_inner.py")
            assert pytest.main(["-p", "emitter.testing", "-q", inner]) == 0
            assert "EMITTER_DISABLED" not in os.environ
        """,
    )

    pytester.runpytest_subprocess("test_outer.py").assert_outcomes(passed=1)


def test_asynchronous_tests_have_two_ways_to_call_a_handler(pytester):
    """Awaited, without the decorator; or in a thread, as Lambda would call it. The third way says so."""
    pytest.importorskip("pytest_asyncio", reason="pip install pytest-asyncio")
    pytester.makeini(BY_OPTION)
    pytester.makepyfile(
        checkout=FUNCTION.replace("def handler", "async def handler"),
        test_checkout="""
        import asyncio, checkout, pytest

        async def test_awaited(recorded):
            assert await checkout.handler.__wrapped__("web", None) == "web"
            recorded.assert_counter("orders", 1, channel="web")
            recorded.assert_counter("faas.invocations", 0)
            assert (await checkout.metrics.flush()).error is None

        async def test_in_a_thread(recorded):
            assert await asyncio.to_thread(checkout.handler, "web", None) == "web"
            recorded.assert_counter("orders", 1, channel="web")
            recorded.assert_counter("faas.invocations", 1)

        async def test_called(recorded):
            with pytest.raises(RuntimeError, match="await handler.__wrapped__"):
                checkout.handler("web", None)
            recorded.assert_nothing_recorded()
        """,
    )

    pytester.runpytest_subprocess().assert_outcomes(passed=3)


def test_unittest_cases_use_the_context_manager(pytester):
    """Under pytest with the plugin's line, and under unittest with the variable."""
    pytester.makeini(BY_OPTION)
    pytester.makepyfile(
        checkout=FUNCTION,
        test_checkout="""
        import unittest
        import checkout
        from emitter.testing import recording

        class Test(unittest.TestCase):
            def test_it(self):
                with recording() as recorded:
                    checkout.handler("web", None)
                    recorded.assert_counter("orders", 1, channel="web")
        """,
    )

    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    result = pytester.run("env", "EMITTER_DISABLED=true", sys.executable, "-m", "unittest", "test_checkout")
    result.stderr.fnmatch_lines(["OK"])


def test_tests_in_parallel_processes_do_not_meet(pytester):
    """Each worker of pytest-xdist has emitters of its own, and is switched off as the whole run is."""
    if importlib.util.find_spec("xdist") is None:
        pytest.skip("pip install pytest-xdist")
    pytester.makeini(BY_OPTION)
    pytester.makepyfile(checkout=FUNCTION, test_one=TESTS, test_two=TESTS, test_three=TESTS)

    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=9)
