"""The user file: PgBouncer's format, and a line number for what is not."""

from __future__ import annotations

import hashlib

import pytest

from pgamb.errors import ConfigError
from pgamb.session.userlist import parse_userlist
from pgamb.wire.scram import make_verifier

VERIFIER = make_verifier("pencil", b"0123456789abcdef", 10)
MD5 = "md5" + hashlib.md5(b"pencilcarl").hexdigest()

FILE = f"""\
; users of the shop
# another comment

"ann" "{VERIFIER}"
"bob" "pen""cil; # no comment"   "and what PgBouncer ignores"
  "carl"\t"{MD5}"\r
"d""o" "x"
"eve" ""
"""


def test_a_file_of_every_kind() -> None:
    users = parse_userlist(FILE)
    assert list(users) == ["ann", "bob", "carl", 'd"o', "eve"]
    assert users["ann"].verifier == VERIFIER
    assert users["ann"].password is None
    assert users["bob"].password == 'pen"cil; # no comment'
    assert users["carl"].md5 == MD5
    assert users["carl"].password is None


def test_each_kind_of_secret_knows_its_password() -> None:
    users = parse_userlist(FILE)
    assert users["ann"].matches("pencil")
    assert users["bob"].matches('pen"cil; # no comment')
    assert users["carl"].matches("pencil")
    for name in users:
        assert not users[name].matches("wrong")
        assert not users[name].matches("")


def test_no_secret_is_in_a_repr() -> None:
    shown = repr(parse_userlist(FILE))
    assert 'pen"cil' not in shown
    assert MD5 not in shown


@pytest.mark.parametrize("text", ["", "\n\n", "; nothing\n", "\ufeff# nothing"])
def test_a_file_may_be_empty(text: str) -> None:
    assert parse_userlist(text) == {}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ann secret", 'line 2: not a line of the form "user" "secret"'),
        ('"ann"', "line 2: not a line"),
        ('"ann" "secret', "line 2: not a line"),
        ('"ann" "secret"tail', "line 2: not a line"),
        ('"" "secret"', "line 2: the user name is empty"),
        ('"bob" "secret"', 'line 2: user "bob" is there twice'),
        ('"ann" "SCRAM-SHA-256$4096:secret"', 'line 2: user "ann": not a SCRAM-SHA-256 verifier'),
    ],
)
def test_a_bad_line_is_named_and_its_secret_is_not_shown(line: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_userlist(f'"bob" "x"\n{line}\n')
    assert says in caught.value.message
    assert caught.value.hint
    assert "secret" not in caught.value.message.replace('"secret"', "")
