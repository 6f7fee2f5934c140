"""HTTP dates (RFC 9110 §5.6.7): the preferred form and the two obsolete ones, all in GMT."""

import re
from calendar import timegm
from email.utils import formatdate
from typing import Final

from toska_gateway.worker.http1.grammar import remember

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}
_MONTH = rb"(" + b"|".join(_MONTHS) + rb")"
_TIME = rb"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]|60)"
_FIXDATE = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) " + _MONTH + rb" ([0-9]{4}) " + _TIME + b" GMT")
_RFC850 = re.compile(
    rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, ([0-9]{2})-" + _MONTH + rb"-([0-9]{2}) " + _TIME + b" GMT"
)
_ASCTIME = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) " + _MONTH + rb" ([ 0-9][0-9]) " + _TIME + rb" ([0-9]{4})")
_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_dates: dict[bytes, float | None] = {}


def read_date(value: bytes) -> float | None:
    """Seconds since 1970; `None` if it is no date."""
    if value in _dates:
        return _dates[value]
    date = _read(value)
    remember(_dates, value, date)
    return date


def _read(value: bytes) -> float | None:
    if match := _FIXDATE.fullmatch(value):
        day, month, year, *time = match.groups()
    elif match := _RFC850.fullmatch(value):
        day, month, year, *time = match.groups()
        year = b"19" + year if year >= b"70" else b"20" + year
    elif match := _ASCTIME.fullmatch(value):
        month, day, *time, year = match.groups()
    else:
        return None
    number = _MONTHS[month]
    if not 1 <= int(day) <= _DAYS[number - 1] or int(year) < 1970:
        return None
    hour, minute, second = map(int, time)
    return float(timegm((int(year), number, int(day), hour, minute, second)))


def write_date(seconds: float) -> bytes:
    """A date in the preferred form."""
    return formatdate(int(seconds), usegmt=True).encode()
