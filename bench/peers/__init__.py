"""Every solver that takes part in the benchmarks, by name."""

from bench.peers import geom, mdot, ottjax, ours, pot, published, semi_newton
from bench.peers.peer import Answer, Peer


__all__ = ["ALL", "Answer", "Peer"]

ALL: dict[str, Peer] = {
    peer.name: peer
    for module in (ours, pot, ottjax, geom, mdot, semi_newton, published)
    for peer in module.PEERS
}
