"""Protection against server-side request forgery (SSRF): decides whether an IP address is public.

A URL of a caller must not reach hosts that only the gateway can reach: loopback, the private network, the metadata
service of a cloud (https://owasp.org/www-community/attacks/Server_Side_Request_Forgery). The address that a host
resolves to is checked, so the spelling of the host does not matter.
"""

import ipaddress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All assigned addresses of IPv6 (https://www.iana.org/assignments/ipv6-address-space)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 behind NAT64 (RFC 6052)."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""First 32 bits of an interface identifier that ends with an IPv4 address (RFC 5214)."""
# Networks of IANA's special-purpose registries that `ipaddress` does not know in every supported version of Python.
# 2002::/16 is 6to4, whose relays are gone (RFC 7526).
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
    """Return whether a text is an IP address of the public Internet."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(candidate) for candidate in (address, *_embedded_ipv4(address)))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return True  # the embedded address decides
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _SPECIAL_PURPOSE if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast


def _embedded_ipv4(address: Address) -> list[Address]:
    """Return the IPv4 addresses in an IPv6 address: a router may send packets to them."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [] if address.ipv4_mapped is None else [address.ipv4_mapped]
    number = int(address)
    if address in _NAT64 or (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(number & 0xFFFF_FFFF))
    return found
