"""Every solver that takes part in the benchmarks, by name."""

from . import geom, here, mdot, ottjax, pot, published, semi_newton
from .signature import Answer, Peer


__all__ = ["ALL", "Answer", "Peer"]

ALL: dict[str, Peer] = {
    peer.name: peer
    for module in (here, pot, ottjax, geom, mdot, semi_newton, published)
    for peer in module.PEERS
}
