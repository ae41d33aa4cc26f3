"""The command line itself: help, refusals, exit statuses."""

from __future__ import annotations

import errno
import sys

import click
import pytest
from click.testing import CliRunner, Result

from pgamb.cli import COMMANDS, main
from pgamb.cli.options import OptionsCommand, read
from pgamb.cli.process import explain, run
from pgamb.config import ClientOptions, Loaded, ServerOptions, StatusOptions
from pgamb.config.table import CONFIG_VARIABLE, table
from pgamb.errors import ConfigError, ConnectionFailure, PgambError, RegistryError


def invoke(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    clean = dict.fromkeys((CONFIG_VARIABLE, *(row.variable for row in table(ClientOptions))))
    return CliRunner().invoke(main, list(arguments), env=clean | (environ or {}))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A command `fail`, of a module that the test fills."""
    monkeypatch.setitem(COMMANDS, "fail", "Fails.")
    return monkeypatch


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    @click.command("fail")
    def command() -> None:
        raise error

    module = type(sys)("pgamb.cli.fail")
    module.__dict__["command"] = command
    monkeypatch.setitem(sys.modules, "pgamb.cli.fail", module)
    return invoke("fail")


def test_help_names_every_command() -> None:
    for result in (invoke(), invoke("--help"), invoke("-h")):
        assert result.exit_code == 0
        for command in COMMANDS:
            assert command in result.stdout


@pytest.mark.parametrize(
    ("command", "options"), [("client", ClientOptions), ("server", ServerOptions), ("status", StatusOptions)]
)
def test_help_names_every_option_with_its_variable_and_default(command: str, options: type[ClientOptions]) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    for row in table(options):
        assert row.flag in words
        assert row.variable in words
        assert row.option.help.split()[0] in words
        if row.default_text is not None:
            assert f"default: {row.default_text}; variable: {row.variable}" in words
    assert CONFIG_VARIABLE in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("client",), "pgamb: error: --registry is missing\nhint: give --registry URL"),
        (
            ("client", "--registry", "etcd://h", "--pool-size", "x"),
            'error: --pool-size: "x" is not a whole number\nhint: ',
        ),
        (("client", "--pool-sise", "3"), "pgamb: error: No such option"),
        (("client", "--pool-size"), "pgamb: error: Option '--pool-size' requires an argument."),
        (("client", "extra"), "pgamb: error: Got unexpected extra argument (extra)\nhint: see `pgamb client --help`"),
        (("clinet",), "pgamb: error: No such command 'clinet'."),
        (("server", "--registry", "etcd://h"), "pgamb: error: --dsn is missing"),
        (("status",), "pgamb: error: --registry is missing"),
        (("status", "--config", "/no/such"), 'pgamb: error: --config: "/no/such" cannot be read'),
        (("check", "--pool-sise", "3"), "pgamb: error: No such option"),
    ],
)
def test_bad_input_is_status_2_with_a_message(arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (ConfigError("bad", hint="mend it"), 2, "pgamb: error: bad\nhint: mend it\n"),
        (
            RegistryError("no etcd at etcd://u:pw@h", detail="refused"),
            3,
            "pgamb: error: no etcd at etcd://u:***@h\ndetail: refused\n",
        ),
        (ConnectionFailure("lost"), 1, "pgamb: error: lost\n"),
        (click.ClickException("odd"), 1, "pgamb: error: odd\n"),
        (click.UsageError("odd"), 2, "pgamb: error: odd\nhint: see `pgamb fail --help`\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_statuses(failing: pytest.MonkeyPatch, error: BaseException, status: int, printed: str) -> None:
    result = fail_with(failing, error)
    assert (result.exit_code, result.stderr.lstrip("\n")) == (status, printed)


def test_flags_reach_the_options() -> None:
    seen: list[Loaded[ClientOptions]] = []
    command = OptionsCommand(
        "x", ClientOptions, lambda **given: seen.append(read(ClientOptions, given)), help_text="X."
    )
    arguments = ["--registry", "etcd://h", "--listen", "1", "--listen", "/x", "--no-trust-remote"]
    CliRunner().invoke(command, arguments, env={"PGAMB_TRUST_REMOTE": "true"}, catch_exceptions=False)
    assert [str(address) for address in seen[0].options.listen] == ["1", "/x:5432"]
    assert seen[0].options.trust_remote is False


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ExceptionGroup("g", [ConnectionFailure("second"), ExceptionGroup("h", [ConfigError("first")])]), "first"),
        (
            OSError(errno.EADDRINUSE, "error while attempting to bind on address ('::1', 5432, 0, 0): address in use"),
            "--listen: ::1:5432 is already in use",
        ),
        (
            ExceptionGroup("g", [PermissionError(errno.EACCES, "Permission denied")]),
            "--listen: an address is not permitted",
        ),
    ],
)
def test_the_cause_is_found(error: Exception, message: str) -> None:
    found = explain(error)
    assert found is not None
    assert found.message.startswith(message)


def test_a_defect_is_no_message_for_users() -> None:
    assert explain(ExceptionGroup("g", [ValueError("x")])) is None
    assert explain(FileNotFoundError(errno.ENOENT, "x")) is None


def test_a_process_that_fails_raises_what_a_person_can_mend() -> None:
    options = ClientOptions(registry="etcd://h", log_level="error")

    async def serve() -> None:
        raise ExceptionGroup("g", [ConfigError("mend me")])

    with pytest.raises(PgambError, match="mend me"):
        run(serve, Loaded(options, {}, ()))


def test_a_process_that_crashes_says_so_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    options = ClientOptions(registry="etcd://h")

    async def serve() -> None:
        raise ValueError("a defect")

    with pytest.raises(SystemExit) as caught:
        run(serve, Loaded(options, {}, ()))
    assert caught.value.code == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "FATAL process.crashed error=" in line
    assert "Traceback" in line
