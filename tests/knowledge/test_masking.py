from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._util.api_key_shapes import MASK
from ctxbackends.knowledge._privacy.masking import mask
from tests.key_samples import KEYS
from tests.knowledge.secret_samples import NOT_SECRETS, SECRETS

RUN = "a1B2c3D4e5F6g7H8"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('api_key = "abcd1234efgh"', f'api_key = "{MASK}"'),
        ("OPENAI_API_KEY=abc123def456", f"OPENAI_API_KEY={MASK}"),
        ("export GITHUB_TOKEN='q1w2e3r4t5'", f"export GITHUB_TOKEN='{MASK}'"),
        ("password: hunter2hunter2", f"password: {MASK}"),
        ('{"client_secret": "aGVsbG8gd29ybGQ"}', f'{{"client_secret": "{MASK}"}}'),
        ("Authorization: Bearer abc.def-123456789", f"Authorization: Bearer {MASK}"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", f"Authorization: Basic {MASK}"),
        ("postgres://me:s3cret@db/x", f"postgres://me:{MASK}@db/x"),
    ],
)
def test_assigned_secrets(text: str, expected: str) -> None:
    assert (expected, 1) == mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "commit 315c43ea1b2c3d4e5f60718293a4b5c6d7e8f901",
        "id 3f2a6b7c-1d2e-4f5a-8b9c-0d1e2f3a4b5c",
        "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "the secret: do it well and often",
        "max_tokens: 200000000",
        "input_tokens=12345678",
        "api_key_env: OPENAI_API_KEY",
        "TOKEN=$GITHUB_TOKEN",
        "password = os.environ['DB_PASSWORD']",
        'api_key = "<your-key-here>"',
        'api_key="xxxxxxxxxxxx"',
        "token = config.token_of(user)",
        "basic understanding of tokens: something",
        "we talk about bearer authentication",
        "https://example.org/path:with@sign",
    ],
)
def test_text_that_is_not_secret(text: str) -> None:
    assert (text, 0) == mask(text)


def test_a_private_key_keeps_its_lines() -> None:
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{RUN}\n{RUN}\n-----END RSA PRIVATE KEY-----"
    text_, count = mask(f"before\n{key}\nafter")
    assert 1 == count
    assert RUN not in text_
    assert "before\nafter".count("\n") + key.count("\n") + 1 == text_.count("\n")
    assert text_.startswith(f"before\n{MASK}\n")
    assert text_.endswith("\nafter")


def test_an_encrypted_private_key_has_an_empty_line() -> None:
    begin = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0123\n"
    end = f"{RUN}\n  {RUN}\r\n-----END RSA PRIVATE KEY-----"
    assert (f"before\n{MASK}" + "\n" * 6 + " after", 1) == mask(f"before\n{begin}\n{end} after")
    assert (MASK + "\n" * 3, 1) == mask(begin)  # in passages of their own
    assert (MASK + "\n" * 2, 1) == mask(end)
    assert ("words\n-----END RSA PRIVATE KEY-----", 0) == mask("words\n-----END RSA PRIVATE KEY-----")


def test_several_secrets() -> None:
    text_, count = mask(f"{KEYS[0]} and {KEYS[2]}\npassword={RUN}")
    assert (3, f"{MASK} and {MASK}\npassword={MASK}") == (count, text_)


@given(st.text(alphabet="ab1=:\"'\n -_@/.keysctokenpwr", max_size=200))
def test_line_ends_are_kept_and_masking_is_idempotent(text: str) -> None:
    text_, _ = mask(text)
    assert text.count("\n") == text_.count("\n")
    assert (text_, 0) == mask(text_)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "token=",
        "api_key",
        "-----BEGIN PRIVATE KEY-----",
        f"{RUN}\n-----END PRIVATE KEY-----\n",
        "://",
        "sk-",
        "eyJ",
        'password="',
        "x:y@",
        "Bearer ",
    ],
)
def test_masking_takes_linear_time(unit: str) -> None:
    # What is quadratic takes a hundred times as long for ten times the text.
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        start = time.process_time()  # other processes take time of this one's
        mask(text)
        return time.process_time() - start

    short = max(min(seconds(50_000) for _ in range(3)), 1e-3)
    assert min(seconds(500_000) for _ in range(2)) < 40 * short


def test_there_are_enough_samples() -> None:
    assert min(len(SECRETS), len(NOT_SECRETS)) >= 60


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_in_real_shapes_are_masked(text: str, secret: str) -> None:
    assert secret in text
    masked, count = mask(text)
    assert (True, False) == (count > 0, secret in masked)
    assert (masked, 0) == mask(masked)


def test_other_texts_are_not_masked() -> None:
    assert len([text for text in NOT_SECRETS if mask(text)[1]]) <= 2
