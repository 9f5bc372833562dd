"""How the tests start servers that open their own port."""

from __future__ import annotations

import socket

import pytest

from tests.peers import processes
from tests.peers.aggregator import aggregator
from tests.peers.influxdb import influxdb
from tests.peers.prometheus import prometheus
from tests.peers.victoria_metrics import victoria_metrics

SERVERS = pytest.mark.parametrize("server", [aggregator, influxdb, prometheus, victoria_metrics])


@SERVERS
def test_a_server_whose_port_was_taken_meanwhile_is_given_another(server, tmp_path, monkeypatch) -> None:
    """Between the moment in which a port was free and the server's own, somebody else may have been faster."""
    with socket.socket() as faster:
        faster.bind(("127.0.0.1", 0))
        free_port = processes._free_port()
        ports = [faster.getsockname()[1], free_port]
        monkeypatch.setattr(processes, "_free_port", lambda: ports.pop(0))
        with server(tmp_path) as running:
            url = running.url

    assert ports == []
    assert url == f"http://127.0.0.1:{free_port}"


def test_a_server_that_cannot_start_says_why(tmp_path) -> None:
    """Whatever it wrote is in the failure; nobody waits until the end of all patience."""
    with (
        pytest.raises(AssertionError, match="no such thing"),
        processes.standing(lambda port: (["sh", "-c", "echo no such thing; exit 1"], {}), tmp_path, "/"),
    ):
        pass
