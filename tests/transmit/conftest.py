"""A connection to a scripted peer, and a peer that takes next to nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.scripted_peer import ScriptedPeer
from tests.tls import TlsPeer
from tests.transmit.connections import connect
from tests.transmit.secrecy import SERVERS


@pytest.fixture
async def connection(peer: ScriptedPeer):
    """An open connection to the peer, closed at the end."""
    connection = await connect(peer)
    yield connection
    connection._lost("the test is over")
    await asyncio.sleep(0)  # the loop closes the stream's socket


@pytest.fixture
def narrow_peer():
    """A peer whose kernel takes only a few kilobytes while nobody reads."""
    peer = ScriptedPeer(receive_buffer_bytes=4_096)
    yield peer
    peer.close()


@pytest.fixture(params=SERVERS)
def tls_peer(request):
    """A peer that speaks TLS, of each version."""
    peer = TlsPeer(SERVERS[request.param])
    yield peer
    peer.close()
