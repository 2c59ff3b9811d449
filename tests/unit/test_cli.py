"""The command line without any server: help, settings as flags, errors as messages."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from streams.cli import COMMANDS, main
from streams.cli.ask import explanation
from streams.cli.board import Board, money, worth
from streams.cli.progress import Waiting
from streams.settings import names


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty folder and no settings, so that this machine's own do not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PULSELINE_STACK_DIR", str(tmp_path / "stack"))
    for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "APP_ID", "TOPIC_PREFIX"):
        monkeypatch.delenv(f"PULSELINE_{name}", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="pulseline")


def test_help_lists_every_command_without_importing_any():
    """`pulseline --help` needs neither Kafka's nor Redis' client, nor pydantic."""
    program = (
        "import sys, streams.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('kafka', 'redis', 'pydantic', 'rich', 'faust') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert all(name in ran.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    "command",
    ["worker", "watch", "config", "simulate", "demo", "customer", "explain", "rebuild", "repartition", "upgrade"],
)
def test_every_setting_is_a_flag_of_every_command(command):
    """Kebab case, each with what it accepts."""
    shown = run(command, "--help").output
    assert all(f"--{name.lower().replace('_', '-')}" in shown for name in names())


def test_config_tells_each_value_and_its_source(tmp_path, monkeypatch):
    """Flag, environment, .env and default are told apart; passwords are not shown."""
    (tmp_path / ".env").write_text("PULSELINE_LATENESS=3s\n")
    monkeypatch.setenv("PULSELINE_REDIS_URL", "redis://:geheim@cache:6379/0")
    result = run("config", "--json", "--partitions", "8", "--rebuild")
    shown = json.loads(result.output)
    assert shown["PULSELINE_PARTITIONS"] == {"value": "8", "source": "flag"}
    assert shown["PULSELINE_REBUILD"] == {"value": "on", "source": "flag"}
    assert shown["PULSELINE_LATENESS"] == {"value": "3s", "source": ".env"}
    assert shown["PULSELINE_REDIS_URL"] == {"value": "redis://:***@cache:6379/0", "source": "environment"}
    assert shown["PULSELINE_APP_ID"] == {"value": "pulseline", "source": "default"}
    assert "geheim" not in run("config").output


def test_the_running_stack_is_found(tmp_path):
    """Addresses that `stack up` wrote are used below .env and environment."""
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack" / "stack.json").write_text(
        json.dumps({"how": "local", "bootstrap": "127.0.0.1:1234", "redis_url": "redis://127.0.0.1:99/0"})
    )
    shown = json.loads(run("config", "--json").output)
    assert shown["PULSELINE_KAFKA_BOOTSTRAP"] == {"value": "127.0.0.1:1234", "source": "stack"}


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (("config", "--lateness", "soon"), {}, "PULSELINE_LATENESS=soon is not accepted"),
        (("worker",), {"PULSELINE_LATENES": "1s"}, "Did you mean PULSELINE_LATENESS"),
        (("worker", "--cart-steps", "1h,15m"), {}, "strictly increasing"),
        (("topics", "check", "--partitions", "none"), {}, "PULSELINE_PARTITIONS"),
    ],
)
def test_a_bad_setting_stops_the_start_with_a_message(arguments, environ, words, monkeypatch):
    """Exit code 2, the name, no traceback."""
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "--kafka-bootstrap", "127.0.0.1:1"),
        ("topics", "apply", "--kafka-bootstrap", "127.0.0.1:1"),
        ("simulate", "--kafka-bootstrap", "127.0.0.1:1"),
        ("explain", "913e221bbf3369fc75e05203c1e1aa02", "--kafka-bootstrap", "127.0.0.1:1"),
        ("customer", "c-1", "--redis-url", "redis://127.0.0.1:1/0"),
    ],
)
def test_a_server_that_is_not_there_is_told_with_what_to_do(arguments):
    """Exit code 1, the address, no traceback."""
    result = run(*arguments, "--request-timeout", "300ms", "--redis-timeout", "300ms")
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "--duration", "soon"),
        ("demo", "--duration", "soon"),
        ("simulate", "--dirty", "much"),
        ("simulate", "--dirty", "60%"),
    ],
)
def test_bad_options_are_usage_errors(arguments):
    """Exit code 2 before anything is started."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_amounts_are_written_for_people():
    """Minor units become an amount with its currency, if there is one."""
    assert (money(123_456, "EUR"), money(99, None), money(None, "EUR")) == ("1,234.56 EUR", "0.99", "")


def test_metrics_are_written_in_their_unit():
    """Ratios as per cent, money with its currency, the rest as it is; a null value is a dash."""
    metric = {"unit": "ratio", "value": 0.4771, "dimensions": {}}
    assert worth(metric) == "47.7%"
    assert worth(metric | {"value": None}) == "-"
    assert worth(metric | {"unit": "minor units", "value": 1_234.4, "dimensions": {"currency": "EUR"}}) == "12.34 EUR"
    assert worth(metric | {"unit": "events", "value": 12}) == "12 events"


TRIGGER = {
    "trigger_id": "913e221bbf3369fc75e05203c1e1aa02",
    "kind": "cart",
    "step": "15m",
    "customer_id": "c-1",
    "cart_id": None,
    "items_count": 2,
    "total_minor": 2_580,
    "currency": "EUR",
    "last_touch_ms": 1_700_000_000_000,
    "due_ms": 1_700_000_900_000,
    "emitted_ms": 1_700_000_910_500,
    "idle_ms": 910_500,
    "score": 12.5,
}


def test_an_explanation_says_why_and_what_became_of_it():
    """Touch, due time, decision, what came after, and how the cart stands now."""
    cancel = {"action": "cancel", "reason": "recovered", "occurred_at_ms": 1_700_001_000_000}
    outcome = {
        "outcome": "recovered",
        "order_total_minor": 2_580,
        "currency": "EUR",
        "occurred_at_ms": 1_700_001_000_000,
    }
    told = "\n".join(explanation(TRIGGER, [cancel, outcome], None))
    for words in (
        "25.80 EUR",
        "2023-11-14 22:13:20  last touch",
        "22:28:20  step 15m was due",
        "cancelled: the cart was recovered",
        "by an order of 25.80 EUR",
        "the cart is closed",
    ):
        assert words in told
    cart = {"cart_id": None, "fired": ["15m"], "last_touch_ms": 1_700_000_000_000}
    assert "the trigger holds" in explanation(TRIGGER, [], cart)[-1]
    assert "last touched" in explanation(TRIGGER, [], cart | {"last_touch_ms": 1_700_001_000_000})[-1]


def test_a_short_wait_says_nothing_and_a_long_one_does(monkeypatch, capsys):
    """Progress appears where a person waits more than two seconds."""
    now_s = [0.0]
    monkeypatch.setattr("streams.cli.progress.time.monotonic", lambda: now_s[0])
    with Waiting("reading") as waiting:
        now_s[0] = 1.0
        waiting.tick("1 of 9")
        assert capsys.readouterr().err == ""
        now_s[0] = 1.9
        waiting.tick("2 of 9")
        assert "reading: 2 of 9, 2 s" in capsys.readouterr().err


def test_the_screen_fits_a_small_terminal():
    """Fewer rows are shown where there are fewer lines."""
    from rich.console import Console

    board = Board()
    for number in range(20):
        board.triggers.append({**TRIGGER, "customer_id": f"c-{number}"})
    console = Console(width=120, height=30, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.capture() as shown:
        console.print(board.screen("title", height=30))
    console.file.close()
    assert shown.get().count("913e221b") == 2
