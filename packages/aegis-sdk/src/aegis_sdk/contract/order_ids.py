"""Ids that outside systems take, as a venue does for an order: of a fixed length and few kinds of characters.

Such an id is a hash of what stays the same whenever its request's handler runs: the request, and the name that the handler gives to
this id among its others. No clock, no chance and no counter goes in, so any instance computes the same one, before a crash and after it.
What a retry asks anew (`…r1`), and what an operator sends again (`…+1`), has the ids of the request that it stands for: that one may have
reached the venue before it failed.

Two requests may have the same id by chance. Of N possible ids and n that are used, some two are equal with a probability of about
n² / 2N. `IDS_MIN` keeps that at one in a million for a million ids, the orders of a busy day: N ≥ n² / (2 · 10⁻⁶) = 5 · 10¹⁷.
18 digits (10¹⁸) pass, 17 don't; of digits and capitals 12 characters pass (36¹² = 4.7 · 10¹⁸). Who uses more ids in the time for which
a venue compares them takes a longer one: with 20 digits and capitals a billion ids have a chance of 4 in 10¹⁴.

The digest has 512 bits, and at most `LENGTH_MAX` characters are taken from it: 64 of 94 kinds are 420 bits. So no id is more likely
than another by more than 2⁻⁹².
"""

from __future__ import annotations

import hashlib
import re
import string
from typing import Final

from aegis_sdk.contract import arguments
from aegis_sdk.errors import InvalidArgument

ALPHABET: Final = string.digits + string.ascii_uppercase
LENGTH: Final = 20
LENGTH_MAX: Final = 64
IDS_MIN: Final = 5 * 10**17
_DIGEST_BYTES: Final = 64
_STANDS_FOR: Final = re.compile(r"(?:r[0-9]+|\+[0-9]+)+$")
_SENT_AGAIN: Final = re.compile(r"\+[0-9]+$")


def order_id(request_id: str, name: str, *, length: int, alphabet: str) -> str:
    """Raises: InvalidArgument."""
    length = arguments.whole(length, "length", least=1, most=LENGTH_MAX)
    alphabet = _checked(alphabet)
    if len(alphabet) ** length < IDS_MIN:
        raise InvalidArgument(
            f"order ids of {length} characters of {len(alphabet)} kinds are too few to be told apart: among a million, two"
            f" would be equal with a chance of over one in a million; take {_length_min(alphabet)} characters, or more kinds"
        )
    said = "\0".join((_first(request_id), name, str(length), alphabet))
    digest = hashlib.blake2b(said.encode(), digest_size=_DIGEST_BYTES, person=b"aegis order id")
    return _written(int.from_bytes(digest.digest(), "big"), length, alphabet)


def _checked(alphabet: object) -> str:
    """Raises: InvalidArgument."""
    text = arguments.text(alphabet, "alphabet", error=InvalidArgument)
    if len(text) < 2 or len(set(text)) < len(text) or not all("!" <= each <= "~" for each in text):
        raise InvalidArgument(
            f"alphabet must be two or more different printable ASCII characters without blanks; got {text!r}"
        )
    return text


def _length_min(alphabet: str) -> int:
    return next(n for n in range(1, LENGTH_MAX + 1) if len(alphabet) ** n >= IDS_MIN)


def _first(request_id: str) -> str:
    """The request that this one stands for, and those above it likewise."""
    caller, number, *calls = request_id.replace(".", "~").split("~")
    own = [_STANDS_FOR.sub("", call) for call in calls]
    return "~".join((caller, _SENT_AGAIN.sub("", number), *own))


def _written(number: int, length: int, alphabet: str) -> str:
    kinds, written = len(alphabet), []
    for _ in range(length):
        number, each = divmod(number, kinds)
        written.append(alphabet[each])
    return "".join(written)
