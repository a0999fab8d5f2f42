from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentobs.sessions.urls import Place, parse_hosts, parse_url

SETTING = "AGENTOBS_DATABASE_URL"
PASSWORD = "swordfish"  # noqa: S105 (no one's password)
WHOLE = Place(("db.example",), (5433,), "agent", PASSWORD, "agents")

# PostgreSQL takes no NUL in a name, and libpq none in a URL.
a_text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)
a_host_name = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True)
# A comma ends a folder, for libpq too.
a_socket_folder = st.text(st.characters(codec="utf-8", exclude_characters="\x00,"), min_size=1).map(
    "/{}".format
)
a_host = a_host_name | a_socket_folder


def encoded(part: str) -> str:
    return quote(part, safe="")


def parsed(url: str) -> Place:
    return parse_url(url, SETTING)


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+asyncpg", "PostgreSQL", "POSTGRES"]
)
def test_a_url_of_postgresql_is_read_into_its_parts(scheme: str) -> None:
    assert parsed(f"{scheme}://agent:{PASSWORD}@db.example:5433/agents") == WHOLE


@pytest.mark.parametrize("database", ["dbname", "database"])
def test_each_part_may_stand_in_the_query(database: str) -> None:
    place = parsed(
        f"postgresql:///?host=db.example&port=5433&user=agent&password={PASSWORD}&{database}=agents"
    )

    assert place == WHOLE


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://", Place()),
        ("postgresql:///agents", Place(database="agents")),
        ("postgresql://db.example", Place(("db.example",))),
        ("postgresql://db.example/", Place(("db.example",))),
        ("postgresql://db.example:/agents", Place(("db.example",), database="agents")),
        ("postgresql://agent@db.example", Place(("db.example",), user="agent")),
        ("postgresql://agent@/agents", Place(user="agent", database="agents")),
        ("postgresql://agent:@/agents", Place(user="agent", database="agents")),
        (f"postgresql://:{PASSWORD}@db.example", Place(("db.example",), password=PASSWORD)),
    ],
)
def test_each_part_may_be_left_out(url: str, place: Place) -> None:
    assert parsed(url) == place


def test_options_may_stand_right_after_the_host() -> None:
    place = parsed("postgresql://db.example?sslmode=require&application_name=router")

    assert place.hosts == ("db.example",)
    assert place.options == {"sslmode": "require", "application_name": "router"}


@pytest.mark.parametrize("query", ["", "?", "?&", "?sslmode=require&"])
def test_a_query_may_end_early(query: str) -> None:
    assert parsed(f"postgresql://db.example/agents{query}").database == "agents"


def test_white_space_around_a_url_is_left_away() -> None:
    assert parsed(f"  postgresql://agent:{PASSWORD}@db.example:5433/agents\n") == WHOLE


def test_special_characters_are_percent_encoded() -> None:
    place = parsed(
        "postgresql://r%C3%B6le%40corp:p%40ss%2Fw%3A%25@db.example/%C3%A4%2Fgents"
        "?application_name=a%26b%3Dc"
    )

    assert place.user == "röle@corp"
    assert place.password == "p@ss/w:%"  # noqa: S105 (no one's password)
    assert place.database == "ä/gents"
    assert place.options == {"application_name": "a&b=c"}


def test_a_plus_stays_a_plus() -> None:
    place = parsed("postgresql://a+b:c+d@db.example/e+f?application_name=g+h")

    assert (place.user, place.password, place.database) == ("a+b", "c+d", "e+f")
    assert place.options == {"application_name": "g+h"}


def test_only_the_first_equals_sign_ends_the_name_of_an_option() -> None:
    assert parsed("postgresql:///?options=-c%20geqo=off").options == {"options": "-c geqo=off"}


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://[::1]/agents", ["::1"], []),
        ("postgresql://[2001:db8::7]:5433/agents", ["2001:db8::7"], [5433]),
        ("postgresql://[fe80::1%25eth0]:5433/agents", ["fe80::1%eth0"], [5433]),
        ("postgresql:///agents?host=::1", ["::1"], []),
        ("postgresql:///agents?host=2001:db8::7&port=5433", ["2001:db8::7"], [5433]),
        ("postgresql:///agents?host=[::1]:5433", ["::1"], [5433]),
        ("postgresql://[::1],[::2]:5433/agents", ["::1", "::2"], [5432, 5433]),
        ("postgresql://db.example:5433,[::1]/agents", ["db.example", "::1"], [5433, 5432]),
    ],
)
def test_an_address_of_ipv6_is_read(url: str, hosts: list[str], ports: list[int]) -> None:
    place = parsed(url)

    assert (list(place.hosts), list(place.ports)) == (hosts, ports)


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("postgresql://db1,db2/agents", []),
        ("postgresql://db1:5433,db2:5434/agents", [5433, 5434]),
        ("postgresql://db1:5433,db2/agents", [5433, 5432]),
        ("postgresql://db1,db2:5434/agents", [5432, 5434]),
        ("postgresql://agent:word@db1:5433,db2:5434/agents", [5433, 5434]),
        ("postgresql://db1,db2/agents?port=5433", [5433, 5433]),
        ("postgresql://db1,db2/agents?port=5433,5434", [5433, 5434]),
        ("postgresql:///agents?host=db1,db2", []),
        ("postgresql:///agents?host=db1,db2&port=5433", [5433, 5433]),
        ("postgresql:///agents?host=db1,db2&port=5433,5434", [5433, 5434]),
        ("postgresql:///agents?host=db1,db2&port=,5434", [5432, 5434]),
        ("postgresql:///agents?host=db1:5433&host=db2:5434", [5433, 5434]),
        ("postgresql:///agents?host=db1&host=db2&port=5433&port=5434", [5433, 5434]),
    ],
)
def test_several_hosts_have_a_port_each(url: str, ports: list[int]) -> None:
    place = parsed(url)

    assert place.hosts == ("db1", "db2")
    assert list(place.ports) == ports


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("postgresql:///agents?host=/run/postgresql", []),
        ("postgresql:///agents?host=/run/postgresql&port=5433", [5433]),
        ("postgresql:///agents?host=%2Frun%2Fpostgresql", []),
        ("postgresql://%2Frun%2Fpostgresql/agents", []),
        ("postgresql://agent@%2Frun%2Fpostgresql/agents", []),
        ("postgresql://%2Frun%2Fpostgresql/agents?port=5433", [5433]),
        ("postgresql://%2Frun%2Fpostgresql:5433/agents", [5433]),
    ],
)
def test_a_host_that_begins_with_a_slash_is_the_folder_of_a_socket(
    url: str, ports: list[int]
) -> None:
    place = parsed(url)

    assert place.hosts == ("/run/postgresql",)
    assert list(place.ports) == ports


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://agent@/agents?host=/cloudsql/project:region:instance",
        "postgresql://agent@%2Fcloudsql%2Fproject%3Aregion%3Ainstance/agents",
    ],
)
def test_the_folder_of_a_socket_may_hold_colons(url: str) -> None:
    assert parsed(url).hosts == ("/cloudsql/project:region:instance",)


def test_sockets_and_servers_stand_side_by_side() -> None:
    place = parsed("postgresql:///agents?host=/run/postgresql,db.example&port=5433,5434")

    assert place.hosts == ("/run/postgresql", "db.example")
    assert place.ports == (5433, 5434)


@pytest.mark.parametrize("url", ["postgresql://:5433/agents", "postgresql://agent@:5433/agents"])
def test_a_port_without_a_host_is_one_of_the_usual_host(url: str) -> None:
    place = parsed(url)

    assert place.hosts == ()
    assert place.database == "agents"


def test_parts_that_are_no_url_are_not_percent_decoded() -> None:
    hosts, _ = parse_hosts("/srv/100%25,db.example", "", "AGENTOBS_HOST")

    assert hosts == ("/srv/100%25", "db.example")


def test_no_host_has_no_port() -> None:
    assert parse_hosts("", "", "AGENTOBS_HOST") == ((), ())


@pytest.mark.parametrize(
    ("url", "described"),
    [
        (f"postgresql://agent:{PASSWORD}@db.example:5433/agents", "agent@db.example:5433/agents"),
        ("postgresql://db1,db2/agents?sslmode=require", "db1,db2/agents"),
        ("postgresql://[::1]:5433/agents", "[::1]:5433/agents"),
        ("postgresql://", "/"),
    ],
)
def test_a_place_is_told_without_password_and_options(url: str, described: str) -> None:
    assert parsed(url).describe() == f"postgresql://{described}"


def test_the_repr_of_a_place_shows_no_secret() -> None:
    place = parsed(f"postgresql://agent:{PASSWORD}@db.example/agents?sslpassword={PASSWORD}")

    assert PASSWORD not in repr(place)


@example(user="%41", password="%25", database="%2F")  # noqa: S106 (no one's password)
@given(user=a_text, password=a_text, database=a_text)
def test_any_text_that_is_percent_encoded_comes_back(
    user: str, password: str, database: str
) -> None:
    place = parsed(
        f"postgresql://{encoded(user)}:{encoded(password)}@db.example/{encoded(database)}"
    )

    assert place == Place(("db.example",), (), user, password, database)


@given(st.dictionaries(st.sampled_from(["user", "password", "application_name"]), a_text))
def test_any_text_that_is_percent_encoded_comes_back_from_the_query(parts: dict[str, Any]) -> None:
    query = "&".join(f"{name}={encoded(value)}" for name, value in parts.items())

    place = parsed(f"postgresql:///?{query}")

    assert {**place.options, "user": place.user, "password": place.password} == {
        "user": None,
        "password": None,
        **parts,
    }


@example(hosts=["/srv/100%25"], port=5432)
@given(hosts=st.lists(a_host, min_size=1, max_size=3), port=st.integers(1, 65535))
def test_any_host_that_is_percent_encoded_comes_back(hosts: list[str], port: int) -> None:
    place = parsed(f"postgresql://{','.join(map(encoded, hosts))}/?port={port}")

    assert place == Place(tuple(hosts), (port,) * len(hosts))


@example(hosts=["/srv/100%25"], port=5432)
@given(hosts=st.lists(a_host, min_size=1, max_size=3), port=st.integers(1, 65535))
def test_any_host_that_is_percent_encoded_comes_back_from_the_query(
    hosts: list[str], port: int
) -> None:
    place = parsed(f"postgresql:///?host={encoded(','.join(hosts))}&port={port}")

    assert place == Place(tuple(hosts), (port,) * len(hosts))
