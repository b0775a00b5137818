"""Which addresses may be fetched from: public ones only, whatever name leads there."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["AddressRefusedError", "CheckedResolver", "is_public", "literal"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_OPEN = [ipaddress.ip_network(net) for net in ("192.0.0.0/24", "fec0::/10", "3fff::/20", "5f00::/16")]
"""Networks that Python takes for open ones in some versions."""


class AddressRefusedError(Exception):
    """A name or literal leads to an address that is not public."""


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also where IPv6 wraps an IPv4 address."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if any(v4 is not None and not is_public(str(v4)) for v4 in inner):
            return False
        if ip.ipv4_mapped or ip in _NAT64:
            return True
    if any(ip in net for net in _NOT_OPEN if net.version == ip.version):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def literal(host: str) -> str | None:
    """The address that `host` spells; None where it is a name.

    Raises:
        ValueError: for other spellings of an address, such as 127.1 or 2130706433. What connects would take
            them for an address and never look them up, so nobody would have checked it.
    """
    if ":" not in host and not host.replace(".", "").isdigit():
        return None
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError(f"{host!r} is no plain address and no name") from None


class CheckedResolver(AbstractResolver):
    """Looks names up and refuses those that lead to any address that is not public.

    The client connects to the very addresses that were checked here; a name that resolves to something else
    a moment later gains nothing.
    """

    def __init__(self, allow_private: bool, hosts: Mapping[str, str]) -> None:
        """Say whether private addresses will do; `hosts` are names whose address is known and trusted."""
        self._allow_private, self._hosts = allow_private, hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name.

        Raises:
            AddressRefusedError: when one of them is not public.
            OSError: when there are none.
        """
        if host in self._hosts:
            return [_result(host, self._hosts[host], port)]
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM
        )
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if not self._allow_private and (bad := [a for a in addresses if not is_public(a)]):
            raise AddressRefusedError(f"{host} is {bad[0]}")
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing is held."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
    )
