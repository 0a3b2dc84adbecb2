"""Which addresses of the network a caller may have the gateway call.

A URL of a caller must not reach what only the gateway can reach: loopback, the private network, the metadata of a cloud
(https://owasp.org/www-community/attacks/Server_Side_Request_Forgery). What counts is the address that a name resolves
to, however either is written.
"""

import ipaddress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out (https://www.iana.org/assignments/ipv6-address-space)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 behind NAT64 (RFC 6052)."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The middle of an interface identifier that is followed by an IPv4 address (RFC 5214)."""
# In the registries of special purposes, but not in the `ipaddress` of every Python this runs on. 2002::/16 is 6to4,
# whose relays are gone (RFC 7526).
_SPECIAL_PURPOSE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)


def is_public_address(text: str) -> bool:
    """Whether an address, as text, is one that anybody on the Internet can reach. What is no address is not."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(each) for each in (address, *_embedded_ipv4(address)))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return True  # judged by the address inside
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _SPECIAL_PURPOSE if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast


def _embedded_ipv4(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address carries: a gateway on the way may send the packet there."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [] if address.ipv4_mapped is None else [address.ipv4_mapped]
    number = int(address)
    if address in _NAT64 or (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(number & 0xFFFF_FFFF))
    return found
