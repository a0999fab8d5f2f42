from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from uuid import NAMESPACE_DNS, RFC_4122, UUID, uuid1, uuid3, uuid4, uuid5
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agentobs.errors import InvalidValueError
from agentobs.keys import EPOCH, instant_of, is_time_ordered, uuid7_at, uuid7_floor

MICROSECOND = timedelta(microseconds=1)
LAST = datetime.max.replace(tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")

# Hypothesis takes bounds without a zone; those of zones leave room for their offsets.
INSTANTS = st.datetimes(min_value=EPOCH.replace(tzinfo=None), timezones=st.just(UTC))
ZONED = st.datetimes(
    min_value=datetime(1970, 1, 3),  # noqa: DTZ001
    max_value=datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.timezones(),
)
BEFORE_1970 = st.datetimes(
    max_value=datetime(1969, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
    timezones=st.just(UTC),
)

# As other libraries make them too: with any fraction. All of them lie before the year 9999.
KEYS = st.builds(
    lambda milliseconds, fraction, random: UUID(
        int=milliseconds << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | random
    ),
    st.integers(0, 253_370_764_799_999),
    st.integers(0, (1 << 12) - 1),
    st.integers(0, (1 << 62) - 1),
)

# Where calendars go wrong.
EDGES = [
    EPOCH,
    EPOCH + MICROSECOND,
    datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2000, 2, 29, 12, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2024, 3, 1, tzinfo=UTC),
    datetime(2023, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    datetime(2100, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2025, 4, 30, 23, 59, 59, 999999, tzinfo=UTC),
    LAST,
]


class Zoneless(tzinfo):
    """A time zone that does not know its offset: a datetime with it is naive."""

    def utcoffset(self, when: datetime | None) -> None:
        del when

    dst = utcoffset

    def tzname(self, when: datetime | None) -> None:
        del when


@given(INSTANTS)
def test_an_instant_comes_back_to_the_microsecond(instant: datetime) -> None:
    assert instant_of(uuid7_at(instant)) == instant
    assert instant_of(uuid7_floor(instant)) == instant


@pytest.mark.parametrize("instant", EDGES, ids=str)
def test_an_instant_at_an_edge_of_the_calendar_comes_back(instant: datetime) -> None:
    assert instant_of(uuid7_at(instant)) == instant
    assert instant_of(uuid7_floor(instant)) == instant


def test_every_microsecond_of_a_millisecond_has_a_fraction_of_its_own() -> None:
    first = datetime(2025, 6, 1, 12, 30, 15, 417_000, tzinfo=UTC)
    instants = [first + number * MICROSECOND for number in range(1000)]
    keys = [uuid7_floor(instant) for instant in instants]

    assert len({key.int >> 64 & 0xFFF for key in keys}) == 1000
    assert [instant_of(key) for key in keys] == instants


def test_an_instant_is_read_back_in_utc() -> None:
    assert instant_of(uuid7_at(datetime(2025, 7, 1, 12, tzinfo=BERLIN))).tzinfo is UTC


@given(INSTANTS)
def test_a_key_is_a_uuid_of_version_7(instant: datetime) -> None:
    for key in (uuid7_at(instant), uuid7_floor(instant)):
        assert is_time_ordered(key)
        assert (key.version, key.variant) == (7, RFC_4122)


@given(INSTANTS)
def test_the_first_48_bits_are_whole_milliseconds_since_1970(instant: datetime) -> None:
    milliseconds, rest = divmod(instant - EPOCH, timedelta(milliseconds=1))

    assert uuid7_at(instant).int >> 80 == milliseconds
    assert uuid7_floor(instant).int >> 64 & 0xFFF == rest / timedelta(milliseconds=1) * 4096 // 1


def test_the_key_of_the_standards_example_begins_like_it() -> None:
    instant = datetime(2022, 2, 22, 14, 22, 22, tzinfo=timezone(timedelta(hours=-5)))

    assert str(uuid7_floor(instant)) == "017f22e2-79b0-7000-8000-000000000000"


def test_the_first_key_of_all_is_the_one_of_1970() -> None:
    assert str(uuid7_floor(EPOCH)) == "00000000-0000-7000-8000-000000000000"


@given(INSTANTS, INSTANTS)
def test_the_order_of_keys_is_the_order_of_instants(one: datetime, other: datetime) -> None:
    assume(one != other)
    earlier, later = sorted([one, other])

    assert uuid7_at(earlier) < uuid7_at(later)
    assert str(uuid7_at(earlier)) < str(uuid7_at(later))
    assert uuid7_at(earlier).bytes < uuid7_at(later).bytes


@given(INSTANTS)
@example(datetime(2025, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
@example(datetime(2025, 1, 1, 0, 0, 0, 999, tzinfo=UTC))
def test_all_keys_of_an_instant_lie_between_its_floor_and_the_next(instant: datetime) -> None:
    assume(instant < LAST)

    assert uuid7_floor(instant) <= uuid7_at(instant) < uuid7_floor(instant + MICROSECOND)


@given(INSTANTS, INSTANTS)
def test_a_window_of_keys_is_a_window_of_time(since: datetime, instant: datetime) -> None:
    assert (uuid7_at(instant) >= uuid7_floor(since)) is (instant >= since)


@given(INSTANTS)
def test_the_floor_is_always_the_same(instant: datetime) -> None:
    assert uuid7_floor(instant) == uuid7_floor(instant)


def test_the_keys_of_one_instant_differ() -> None:
    assert len({uuid7_at(EPOCH) for _ in range(10_000)}) == 10_000


def test_the_keys_of_one_instant_have_all_62_bits_left_to_chance() -> None:
    keys = [uuid7_at(EPOCH).int for _ in range(200)]
    ever = never = 0
    for key in keys:
        ever |= key
        never |= ~key

    assert ever & never & (1 << 128) - 1 == (1 << 62) - 1


def test_threads_make_keys_that_differ() -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(uuid7_at, [EPOCH] * 10_000))

    assert len(set(keys)) == 10_000


@given(ZONED)
@example(datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN))
@example(datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN, fold=1))
@example(datetime(2025, 3, 30, 2, 30, tzinfo=BERLIN))
def test_the_time_zone_of_an_instant_does_not_matter(instant: datetime) -> None:
    in_utc = instant.astimezone(UTC)

    assert uuid7_floor(instant) == uuid7_floor(in_utc)
    assert instant_of(uuid7_at(instant)) == in_utc


def test_the_hour_that_a_clock_shows_twice_makes_two_keys_in_order() -> None:
    first = datetime(2025, 10, 26, 2, 30, tzinfo=BERLIN)
    second = first.replace(fold=1)

    assert instant_of(uuid7_at(second)) - instant_of(uuid7_at(first)) == timedelta(hours=1)


@given(st.datetimes())
def test_a_naive_datetime_is_refused(instant: datetime) -> None:
    for make in (uuid7_at, uuid7_floor):
        with pytest.raises(InvalidValueError, match="must have a time zone"):
            make(instant)


def test_a_datetime_whose_zone_has_no_offset_is_refused_like_a_naive_one() -> None:
    with pytest.raises(InvalidValueError, match="must have a time zone"):
        uuid7_at(datetime(2025, 1, 1, tzinfo=Zoneless()))


@given(BEFORE_1970)
@example(EPOCH - MICROSECOND)
@example(datetime.min.replace(tzinfo=UTC))
def test_an_instant_before_1970_is_refused(instant: datetime) -> None:
    for make in (uuid7_at, uuid7_floor):
        with pytest.raises(InvalidValueError, match="must not lie before 1970"):
            make(instant)


def test_1970_begins_when_it_does_in_utc_whatever_a_calendar_on_a_wall_says() -> None:
    west, east = timezone(timedelta(hours=-1)), timezone(timedelta(hours=1))

    assert uuid7_floor(datetime(1969, 12, 31, 23, tzinfo=west)) == uuid7_floor(EPOCH)
    with pytest.raises(InvalidValueError, match="before 1970"):
        uuid7_at(datetime(1970, 1, 1, 0, 59, tzinfo=east))


def test_a_key_beyond_the_last_instant_of_python_is_made_but_can_not_be_read() -> None:
    in_year_10000 = LAST.replace(tzinfo=timezone(timedelta(hours=-1)))
    key = uuid7_at(in_year_10000)

    assert key > uuid7_at(LAST)
    with pytest.raises(InvalidValueError, match="beyond the year 9999"):
        instant_of(key)


def test_the_last_key_of_all_holds_an_instant_beyond_python() -> None:
    with pytest.raises(InvalidValueError, match="beyond the year 9999"):
        instant_of(UUID("ffffffff-ffff-7fff-bfff-ffffffffffff"))


@pytest.mark.parametrize(
    "key",
    [
        uuid1(),
        uuid3(NAMESPACE_DNS, "agent"),
        uuid4(),
        uuid5(NAMESPACE_DNS, "agent"),
        UUID("1ec9414c-232a-6b00-b3c8-9f6bdeced846"),
        UUID("2489e9ad-2ee2-8e00-8ec9-32d5f69181c0"),
        UUID(int=0),
        UUID(int=(1 << 128) - 1),
        UUID("017f22e2-79b0-7cc3-18c4-dc0c0c07398f"),
        UUID("017f22e2-79b0-7cc3-d8c4-dc0c0c07398f"),
    ],
    ids=["v1", "v3", "v4", "v5", "v6", "v8", "nil", "max", "variant of NCS", "variant of COM"],
)
def test_a_uuid_of_another_version_or_variant_holds_no_instant(key: UUID) -> None:
    assert not is_time_ordered(key)
    with pytest.raises(InvalidValueError, match="is no UUIDv7"):
        instant_of(key)


@given(st.uuids() | KEYS)
def test_a_uuid_either_holds_an_instant_or_is_refused(key: UUID) -> None:
    try:
        instant = instant_of(key)
    except InvalidValueError:
        assert not is_time_ordered(key) or key > uuid7_floor(LAST)
    else:
        assert is_time_ordered(key)
        assert instant >= EPOCH


@given(KEYS, KEYS)
def test_instants_of_keys_made_elsewhere_keep_the_order_of_the_keys(one: UUID, other: UUID) -> None:
    earlier, later = sorted([one, other])

    assert instant_of(earlier) <= instant_of(later)


def test_a_key_of_a_finer_clock_gives_the_microsecond_that_it_lies_in() -> None:
    last_of_a_millisecond = UUID("017f22e2-79b0-7fff-8000-000000000000")

    instant = instant_of(last_of_a_millisecond)

    assert instant.microsecond % 1000 == 999
    assert uuid7_floor(instant) <= last_of_a_millisecond
