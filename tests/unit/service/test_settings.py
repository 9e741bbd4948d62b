"""Settings that cannot be used: the message names the variable, the value, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polos_service.config import Settings, SettingsInvalidError
from polos_service.variables import misspelt


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the home folder be the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def refusal(**given: Any) -> str:
    """Return why arguments are refused."""
    with pytest.raises(SettingsInvalidError) as caught:
        Settings.load(**given)
    return str(caught.value)


@pytest.mark.parametrize("store", ["sqlite:///~/runs.db", "sqlite:////~/runs.db"])
def test_a_tilde_in_the_store_is_the_home_folder(home: Path, store: str) -> None:
    settings = Settings.load(store=store)
    assert settings.store_path == home / "runs.db"
    assert settings.store_shown == f"sqlite://{home}/runs.db"


def test_a_tilde_without_a_slash_before_it_is_the_home_folder(home: Path) -> None:
    assert Settings.load(store="sqlite://~/runs.db").store_path == home / "runs.db"


def test_the_home_of_another_user_is_taken_and_an_unknown_one_refused() -> None:
    assert Settings.load(store="sqlite:///~root/runs.db").store_path == Path("/root/runs.db")
    assert "home folder ~nobody-has-this-name is unknown" in refusal(
        store="sqlite:///~nobody-has-this-name/runs.db"
    )


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("sqlite:///C:/x.db", "no drive letters"),
        ("sqlite://C:\\x.db", "no drive letters"),
        ("C:\\x.db", "write sqlite://"),
        ("/var/lib/x.db", "the address of that file is sqlite:///var/lib/x.db"),
        ("sqlite:/var/x.db", "three slashes"),
        ("runs.db", f"the address of that file is sqlite://{Path.cwd()}/runs.db"),
        ("~/runs.db", "the address of that file is sqlite:///~/runs.db"),
        ("sqlite://relative/x.db", f"relative; the absolute one is sqlite://{Path.cwd()}/relative"),
        ("sqlite:///a\0b", "does not name a file"),
        ("sqlite:///", "does not name a file"),
        ("", "write sqlite://"),
    ],
)
def test_what_names_no_file_is_refused_with_the_right_spelling(store: str, words: str) -> None:
    said = refusal(store=store)
    assert said.startswith("POLOS_STORE (--store): ")
    assert repr(store) in said
    assert words in said


@pytest.mark.parametrize("store", ["postgres://me:secret@db/x", "nats://me:secret@"])
def test_a_password_in_a_store_that_is_refused_is_not_repeated(store: str) -> None:
    assert "secret" not in refusal(store=store)


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("::1:50051", "[::1]:50051"),
        ("::1", "[::1]:50051"),
        ("127.0.0.1", "HOST:PORT"),
        ("127.0.0.1:", "HOST:PORT"),
        ("127.0.0.1:x", "HOST:PORT"),
        ("127.0.0.1:-1", "HOST:PORT"),
        ("127.0.0.1:\uff15\uff10", "HOST:PORT"),
        ("127.0.0.1:65536", "from 0 to 65535"),
        ("http://127.0.0.1:50051", "HOST:PORT"),
        ("[127.0.0.1]:50051", "HOST:PORT"),
        ("[::1:50051", "HOST:PORT"),
        ("a b:50051", "HOST:PORT"),
        ("", "HOST:PORT"),
    ],
)
def test_what_is_no_address_is_refused_with_the_right_spelling(listen: str, words: str) -> None:
    said = refusal(listen=listen)
    assert said.startswith(f"POLOS_LISTEN (--listen): {listen!r} is not HOST:PORT")
    assert words in said


@pytest.mark.parametrize("listen", ["[::1]:50051", "localhost:0", "0.0.0.0:65535", "my-host.a:1"])
def test_addresses_are_taken(listen: str) -> None:
    assert Settings.load(listen=listen).listen == listen


@pytest.mark.parametrize("listen", ["unix:/run/p.sock", "unix:///run/p.sock"])
def test_a_unix_socket_is_named_by_its_path(listen: str) -> None:
    assert Settings.load(listen=listen).listen == "unix:/run/p.sock"


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("unix:run/p.sock", f"relative path; the absolute one is unix:{Path.cwd()}/run/p.sock"),
        ("unix://run/p.sock", "relative path"),
        ("unix:", "relative path"),
        ("unix:/run/", "does not name a socket"),
        ("unix:/a\0b", "does not name a socket"),
        ("unix:/run/p%41", "has a %"),
    ],
)
def test_what_names_no_unix_socket_is_refused(listen: str, words: str) -> None:
    said = refusal(listen=listen)
    assert said.startswith(f"POLOS_LISTEN (--listen): {listen!r} ")
    assert words in said


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ({"tls_cert": "c"}, "POLOS_TLS_KEY (--tls-key)"),
        ({"tls_key": "k"}, "POLOS_TLS_CERT (--tls-cert)"),
        ({"tls_cert": "c", "tls_client_ca": "a"}, "POLOS_TLS_KEY (--tls-key)"),
        (
            {"tls_client_ca": "a"},
            "POLOS_TLS_CERT (--tls-cert) and POLOS_TLS_KEY (--tls-key)",
        ),
    ],
)
def test_half_of_tls_is_refused_with_what_is_lacking(given: Any, lacking: str) -> None:
    assert refusal(**given) == f"TLS needs {lacking} as well"


def test_files_of_tls_stay_the_same_wherever_a_tool_goes() -> None:
    settings = Settings.load(tls_cert="cert.pem", tls_key="/run/key.pem")
    assert settings.tls_cert == Path.cwd() / "cert.pem"
    assert settings.tls_key == Path("/run/key.pem")


def test_empty_variables_of_tls_count_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERT", "KEY", "CLIENT_CA"):
        monkeypatch.setenv(f"POLOS_TLS_{name}", "")
    settings = Settings.load()
    assert (settings.tls_cert, settings.tls_key, settings.tls_client_ca) == (None, None, None)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e400", "1e300", "", "soon"])
@pytest.mark.parametrize(
    "variable",
    [
        *("POLOS_GRACE", "POLOS_CLAIM_TIMEOUT", "POLOS_MAX_RUNS", "POLOS_MAX_QUEUED"),
        *("POLOS_NATS_REPLICAS", "POLOS_RETENTION", "POLOS_MAX_METADATA"),
        *("POLOS_MAX_CONNECTION_AGE", "POLOS_MAX_CONNECTION_AGE_GRACE", "POLOS_MIN_PING_INTERVAL"),
    ],
)
def test_a_number_out_of_bounds_is_refused_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert refusal().startswith(f"{variable} ({variable.removeprefix('POLOS_').lower()}): ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POLOS_MAX_RUNS", "9" * 30),
        ("POLOS_MAX_QUEUED", "9" * 30),
        ("POLOS_RETENTION", "P999999999D"),
        ("POLOS_SYNCHRONOUS", "full"),
        ("POLOS_PROVIDER_KEYS", "secret"),
        ("POLOS_PROVIDER_KEYS", '{"http://me:secret@host/v1": 5}'),
        ("POLOS_PROVIDER_KEYS", '["secret"]'),
        ("POLOS_PROVIDER_SWITCHES", '{"http://me:secret@host/v1": ["secret"]}'),
        ("POLOS_PROVIDER_SWITCHES", '{"http://me:secret@host/v1": "stream_options"}'),
        ("OPENAI_BASE_URL", "ftp://me:secret@host"),
        ("POLOS_PROVIDER_ENVIRONMENT", "secret"),
        ("POLOS_PROVIDER_ENVIRONMENT", '{"GROQ_API_KEY": ["secret"]}'),
        ("POLOS_PROVIDER_KEYS", '{"secret": "https://host/v1"}'),
        ("POLOS_PROVIDER_SWITCHES", '{"me:secret@host/v1": ["store"]}'),
        ("POLOS_CALLER_OPTIONS", "top_k"),
        ("POLOS_CALLER_OPTIONS", '["top_k", "extra_body"]'),
        ("POLOS_CALLER_OPTIONS", '["messages"]'),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_variable_and_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    said = refusal()
    assert said.startswith(variable)
    assert "secret" not in said


@pytest.mark.parametrize(
    "value", ["x", "5", '{"gpu.example/v1": "KEY"}', '{"https://gpu.example": 5}']
)
def test_a_setting_in_json_that_cannot_be_used_is_told_with_an_example(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("POLOS_PROVIDER_KEYS", value)
    assert refusal().endswith('; for example {"https://gpu.example/v1": "KEY"}')


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "is not valid JSON"),
        ("[]", "Input should be a valid dictionary"),
        ('{"p": 5}', "p: "),
        ('{"p": {"run": 5}}', "p: run: Extra inputs are not permitted"),
        ('{"p": {"runs": -1}}', "p: runs: Input should be greater than or equal to 0"),
        ('{"p": {"runs": 1.5}}', "p: runs: Input should be a valid integer"),
        ('{"p": {"runs": "5"}}', "p: runs: Input should be a valid integer"),
        ('{"*": {"queued": 1e400}}', "*: queued: "),
        ('{"*": {"log_bytes": 99999999999999999999}}', "*: log_bytes: "),
        ('{"p": {"cost_per_day": NaN}}', ""),
    ],
)
def test_limits_of_projects_that_cannot_be_used_name_project_and_limit(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("POLOS_PROJECT_LIMITS", value)
    said = refusal()
    assert said.startswith(f"POLOS_PROJECT_LIMITS (project_limits): {words}")
    assert "for example {" in said


def test_limits_apply_to_the_project_that_is_named_or_else_to_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = '{"*": {"runs": 5, "queued": 0}, "p": {"runs": null, "cost_per_day": 2.5}}'
    monkeypatch.setenv("POLOS_PROJECT_LIMITS", limits)
    quotas = Settings.load().quotas
    assert (quotas.of("other").runs, quotas.of("other").queued) == (5, 0)
    assert (quotas.of("p").runs, quotas.of("p").queued) == (None, None)
    assert quotas.of("p").cost_micros == 2_500_000


def test_bytes_that_are_stored_cannot_be_limited_with_nats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_PROJECT_LIMITS", '{"p": {"stored_bytes": 5}}')
    assert Settings.load().quotas.of("p").stored_bytes == 5
    assert "p: stored_bytes works with SQLite stores only" in refusal(store="nats://host:4222")


def test_an_empty_price_file_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_PRICES", "")
    assert Settings.load().prices is None


def test_what_settings_say_of_themselves_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:secret@host/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("POLOS_PROVIDER_KEYS", '{"http://me:secret@host/v1": "secret"}')
    monkeypatch.setenv("POLOS_PROVIDER_SWITCHES", '{"http://me:secret@host/v1": ["store"]}')
    settings = Settings.load(store="nats://me:secret@host:4222")
    assert settings.openai_base_url == "https://me:secret@host/v1"
    assert settings.provider_switches == {"http://me:secret@host/v1": ["store"]}
    assert "secret" not in f"{settings!r}{settings}{settings.store_shown}"


def test_providers_read_the_environment_of_the_service_or_what_they_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "secret")
    settings = Settings.load()
    assert settings.provider_environment["GROQ_API_KEY"] == "secret"
    assert "secret" not in f"{settings!r}{settings}"
    assert Settings(provider_environment={}).provider_environment == {}


def test_weights_of_projects_are_numbers_greater_than_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_PROJECT_WEIGHTS", '{"a": 3, "b": 0.5}')
    assert Settings.load().project_weights == {"a": 3.0, "b": 0.5}
    for weight in ("0", "-1", "1e999", "NaN", "null", '"x"'):
        monkeypatch.setenv("POLOS_PROJECT_WEIGHTS", f'{{"a": {weight}}}')
        assert refusal().startswith("POLOS_PROJECT_WEIGHTS (project_weights): ")
        assert refusal().endswith('; for example {"production": 3}')
    monkeypatch.setenv("POLOS_PROJECT_WEIGHTS", '{"a": 0}')
    assert "the weight of project 'a' is 0; it must be greater than 0" in refusal()


def test_a_misspelt_variable_is_named_with_the_one_that_is_meant() -> None:
    given = ["POLOS_STOR", "polos_max_run", "POLOS_XYZZY", "POLOS_STORE", "POLOS_TLS", "HOME"]
    assert list(misspelt(given)) == [
        ("POLOS_STOR", "POLOS_STORE"),
        ("POLOS_XYZZY", ""),
        ("polos_max_run", "POLOS_MAX_RUNS"),
    ]


def test_processes_of_one_service_hide_inputs_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().show_inputs
    for name, flag in Settings.load(show_inputs=False).option_variables.items():
        monkeypatch.setenv(name, flag)
    assert not Settings.load().show_inputs
    assert Settings.load(show_inputs=True).show_inputs
