from __future__ import annotations

import re
from pathlib import Path

import pytest
from aws_lambda_powertools.metrics import Metrics

from emitter.powertools import EmitterProvider
from emitter.testing import recording

DOCUMENT = Path(__file__).parents[2].joinpath("docs", "powertools.md").read_text()
(MIGRATION,) = re.findall(r"```diff\n(.*?)```", DOCUMENT, re.DOTALL)
README = Path(__file__).parents[2].joinpath("README.md").read_text()
(OF_README,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "EmitterProvider" in code]
UNIT_TEST, MADE_BEFORE = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)

BEFORE = "".join(line[1:] for line in MIGRATION.splitlines(keepends=True) if line[0] != "+")
AFTER = "".join(line[1:] for line in MIGRATION.splitlines(keepends=True) if line[0] != "-")
WORKING_CODE = """
@metrics.log_metrics
def handler(event, context):
    metrics.add_metric(name="Orders", unit="Count", value=1)
    return {"statusCode": 200}
"""


@pytest.mark.parametrize("lines", [BEFORE, AFTER], ids=["before", "after"])
def test_the_three_lines_of_the_migration_are_enough(lines, peer, monkeypatch, capsys):
    """The same handler runs before and after them; what was a log line then is a report."""
    monkeypatch.setenv("EMITTER_ENDPOINT", peer.endpoint)
    namespace = {}
    exec(lines + WORKING_CODE, namespace)  # noqa: S102
    result = namespace["handler"]({}, None)
    logged = capsys.readouterr().out

    assert result == {"statusCode": 200}
    if lines is BEFORE:
        assert "ServerlessAirline" in logged
    else:
        assert logged == ""
        assert b"ServerlessAirline.Orders" in peer.accept().read_request().body
        namespace["metrics"].provider.emitter.close_sync(timeout=0.0)


def test_the_unit_test_of_the_document_passes_and_can_fail(monkeypatch):
    """With the README's handler, which is the one that readers know; its emitter needs a receiver no more."""
    monkeypatch.setenv("EMITTER_ENDPOINT", "http://127.0.0.1:9/v1/metrics")
    namespace = {}
    exec(OF_README + UNIT_TEST, namespace)  # noqa: S102
    with recording(namespace["metrics"].provider.emitter) as recorded:
        namespace["test_a_booking_counts"](recorded)
        with pytest.raises(AssertionError, match=r"ServerlessAirline\.Orders"):
            namespace["test_a_booking_counts"](recorded)  # now it is two


def test_what_is_made_before_is_used(emitter):
    """The other snippet, with the namespace that it has there."""
    provider = EmitterProvider(emitter, namespace="ServerlessAirline")
    exec(MADE_BEFORE, {"provider": provider})  # noqa: S102
    provider.add_metric(name="OpenOrders", unit="Count", value=-1)
    provider.add_metric(name="Import", unit="Milliseconds", value=120_000)
    provider.flush_metrics()

    assert provider.refused == 0
    assert emitter.histogram("ServerlessAirline.Import").bind().point.bucket_counts == (0, 1, 0, 0)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(POWERTOOLS_[A-Z_]+)`", DOCUMENT))))
def test_every_variable_of_the_document_is_read(name):
    """By the code of the provider."""
    folder = Path(EmitterProvider.__module__.replace(".", "/")).parent
    code = "".join(path.read_text() for path in (Path(__file__).parents[2] / folder).glob("*.py"))

    assert f'"{name}"' in code


def test_the_provider_can_stand_where_metrics_stands(emitter):
    """Every public method and property of `Metrics`: the document says that it has the same."""
    provider = EmitterProvider(emitter, default_dimensions={"stage": "test"})
    provider.clear_default_dimensions()

    assert {name for name in vars(Metrics) if not name.startswith("_") and not hasattr(provider, name)} == set()
    assert provider.look().dimensions == {}
