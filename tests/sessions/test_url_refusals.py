from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr
from support.addresses import shown

from agentobs import DatabaseSettings
from agentobs.errors import ConfigurationError
from agentobs.sessions.address import database_address
from agentobs.sessions.urls import parse_hosts, parse_url

SETTING = "AGENTOBS_DATABASE_URL"
PASSWORD = "swordfish"  # noqa: S105 (no one's password)
LOGIN = f"agent:{PASSWORD}"

# What means something in a URL is more often met with than other characters.
a_text = st.text(st.sampled_from("/?#@:[]&=%,+ \\\t\n0159ax") | st.characters(codec="utf-8"))


def refusal_of(url: str) -> ConfigurationError:
    """Return the error, which names the setting and does not hold the password."""
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url, SETTING)
    assert PASSWORD not in shown(caught.value)
    assert str(caught.value).startswith(SETTING)
    assert caught.value.setting == SETTING
    return caught.value


def all_that_is_shown_of(url: str) -> str:
    """Return what messages and logs may have of the address, or of its refusal."""
    # Built without validation, which would read the environment.
    settings = DatabaseSettings.model_construct(database_url=SecretStr(url))
    try:
        address = database_address(settings)
    except ConfigurationError as error:
        return shown(error)
    return f"{address!r} {address.place}"


@pytest.mark.parametrize(
    "scheme", ["mysql", "sqlite", "postgresql+psycopg", "postgresql+psycopg2", "https"]
)
def test_another_scheme_is_refused_by_its_name(scheme: str) -> None:
    message = str(refusal_of(f"{scheme}://{LOGIN}@db.example:5432/agents"))

    assert message.startswith(f"{SETTING} begins with {scheme}:")
    assert "postgresql://" in message


@pytest.mark.parametrize("setting", ["AGENTOBS_DATABASE_URL", "AGENTOBS_MIGRATION_URL"])
def test_a_refusal_names_the_setting(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{setting} is no URL") as caught:
        parse_url("agents", setting)

    assert caught.value.setting == setting


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        PASSWORD,
        f"{LOGIN}@db.example/agents",
        f"postgresql:/{LOGIN}@db.example/agents",
        f"postgresql:{LOGIN}@db.example/agents",
        f"://{LOGIN}@db.example/agents",
        f"host=db.example user=agent password={PASSWORD}",
        f"postgresql://{LOGIN}@db.example:port/agents",
        f"postgresql://{LOGIN}@db.example:54x32/agents",
        f"postgresql://{LOGIN}@db.example:-1/agents",
        f"postgresql://{LOGIN}@db.example:٣٤/agents",
        f"postgresql://{LOGIN}@db1,,db2/agents",
        f"postgresql://{LOGIN}@[::1/agents",
        f"postgresql://{LOGIN}@[]/agents",
        f"postgresql://{LOGIN}@[::1]port/agents",
        f"postgresql://{LOGIN}@db.example/agents#readme",
    ],
)
def test_what_is_no_url_is_refused_without_quoting_it(malformed: str) -> None:
    assert "is no URL" in str(refusal_of(malformed))


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql:/{LOGIN}@db.example/agents?sslrootcert=file:///ca.pem",
        f"host=db.example password={PASSWORD} sslrootcert=file:///ca.pem",
        f"{LOGIN}://db.example/agents",
    ],
)
def test_a_password_before_the_first_double_slash_is_no_scheme(text: str) -> None:
    assert "is no URL" in str(refusal_of(text))


@pytest.mark.parametrize("mark", ["/", "/:", ":/", "?", "#", "@", "1/", "1?", "@/"])
def test_a_password_that_should_be_percent_encoded_is_refused_and_not_shown(mark: str) -> None:
    message = str(refusal_of(f"postgresql://agent:{mark}{PASSWORD}@db.example/agents"))

    assert "percent-encoded" in message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://age%00nt@db.example/agents",
        "postgresql://agent:%00@db.example/agents",
        "postgresql://agent@db%00.example/agents",
        "postgresql://agent@db.example/a%00gents",
        "postgresql://agent@db.example/agents?application_name=%00",
    ],
)
def test_a_nul_is_refused_for_it_would_end_the_text_on_the_wire(url: str) -> None:
    refusal_of(url)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_there_is_not_is_refused(port: int) -> None:
    message = str(refusal_of(f"postgresql://{LOGIN}@db.example:{port}/agents"))

    assert f"names the port {port}: ports are 1 to 65535" in message


def test_a_port_longer_than_any_number_is_refused() -> None:
    refusal_of(f"postgresql://{LOGIN}@db.example:{'9' * 5000}/agents")


@pytest.mark.parametrize("port", ["0", "65536", "port"])
def test_a_wrong_port_is_refused_in_the_query(port: str) -> None:
    refusal_of(f"postgresql://{LOGIN}@/agents?host=db.example&port={port}")


@pytest.mark.parametrize(
    ("hosts", "ports"), [("db1,db2,db3", "5433,5434"), ("db1", "5433,5434"), ("db1,db2", ",,")]
)
def test_as_many_ports_as_hosts_are_wanted(hosts: str, ports: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names [123] hosts and [23] ports: one for all"):
        parse_hosts(hosts, ports, SETTING)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        (f"postgresql://{LOGIN}@db.example/agents?host=other.example", "host"),
        (f"postgresql://{LOGIN}@db.example:5432/agents?port=5433", "port"),
        (f"postgresql://{LOGIN}@db.example/agents?user=other", "user"),
        (f"postgresql://{LOGIN}@db.example/agents?password={PASSWORD}", "password"),
        (f"postgresql://{LOGIN}@db.example/agents?dbname=other", "database"),
        (f"postgresql://{LOGIN}@db.example/agents?database=other", "database"),
    ],
)
def test_a_part_that_the_query_gives_again_is_refused(url: str, part: str) -> None:
    assert f"{part} twice: keep one" in str(refusal_of(url))


@pytest.mark.parametrize(
    ("query", "option"),
    [
        ("sslmode=require&sslmode=disable", "sslmode"),
        ("sslmode=disable&ssl=verify-full", "sslmode"),
        ("user=agent&user=other", "user"),
        (f"password={PASSWORD}&password={PASSWORD}", "password"),
        ("dbname=agents&database=other", "dbname"),
        ("application_name=router&application_name=other", "application_name"),
    ],
)
def test_an_option_given_twice_is_refused_for_the_weaker_one_might_win(
    query: str, option: str
) -> None:
    message = str(refusal_of(f"postgresql://db.example?{query}"))

    assert f"gives more than one {option}: keep one" in message


@example("postgresql:///?host=[]")
@example("postgresql:///?port=5433")
@given(a_text.map("postgresql://{}".format) | a_text)
def test_any_text_is_a_place_or_refused_as_none(text: str) -> None:
    with suppress(ConfigurationError):
        place = parse_url(text, SETTING)

        assert len(place.ports) in {0, len(place.hosts) or 1}
        assert all(place.hosts)


@example("1/", "")
@example("a:b/", "")
@example("?", "")
@given(a_text, a_text)
def test_a_password_is_never_shown_whatever_stands_around_it(before: str, after: str) -> None:
    url = f"postgresql://agent:{before}{PASSWORD}{after}@db.example/agents"

    assert PASSWORD not in all_that_is_shown_of(url)


@given(a_text)
def test_a_password_is_never_shown_whatever_follows(rest: str) -> None:
    url = f"postgresql://agent:{PASSWORD}@{rest}"

    assert PASSWORD not in all_that_is_shown_of(url)
