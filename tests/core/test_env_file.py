"""``.env``: read as strictly as config.json; one line with the number of what is wrong, and never a key in it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.env_file import read_env_file
from core.errors import ConfigError
from core.settings import Market, NoModelPolicy, load_settings, setting_names, settings_warnings
from tests.process import python

SECRET = "geheim7"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, where ``.env`` is looked for; no setting is in the environment."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED", "-1")
    content = "PORT=abc\nTRAINING_DAY=30\nMARKET=moon\nDATA_DIR=$HOME\nMARKET=binance\nHOST=::1\nTRAINING_DAYS=1\n"
    (folder / ".env").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    said = [line.partition(": ")[0] for line in str(caught.value).splitlines()]
    assert said == ["environment", *(f".env line {number}" for number in (1, 2, 3, 4, 5, 7))]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("PORT=1\nSEED=2\n".encode("utf-16"), "line 1: the file is UTF-16", id="UTF-16"),
        pytest.param(b"\xfe\xff" + "PORT=1\n".encode("utf-16-be"), "line 1: the file is UTF-16", id="UTF-16, big end"),
        pytest.param("PORT=1\n".encode("utf-16-le"), "line 1: has NUL bytes, as UTF-16", id="UTF-16 without its mark"),
        pytest.param(b"PORT=1\n" + "SEED=2\n".encode("utf-16-le"), "line 2: has NUL", id="UTF-16 appended by >>"),
        pytest.param(b"PORT=1\n\nMARKET_VENUES=\xfc\n", "line 3: byte 0xfc after MARKET_VENUES=", id="a broken byte"),
        pytest.param(
            b"\xef\xbb\xbfPORT=1\nSEED=\xe4\n", "line 2: byte 0xe4 after SEED=", id="a broken byte, UTF-8 mark"
        ),
        pytest.param(
            b"# x\nTRAINING_DAY=30\n", "line 2: 'TRAINING_DAY' is no setting; did you mean TRAINING_DAYS?", id="1"
        ),
        pytest.param(b"MARKETVENUES=kraken\n", "'MARKETVENUES' is no setting; did you mean MARKET_VENUES?", id="2"),
        pytest.param(
            b"COMPOSE_FILES=a\n", "'COMPOSE_FILES' is no name of docker compose; did you mean COMPOSE_FILE?", id="3"
        ),
        pytest.param(b"COMPOSE_PROJECTNAME=a\n", "did you mean COMPOSE_PROJECT_NAME?", id="4"),
        pytest.param(b"FOO=1\n", "line 1: 'FOO' is no setting; see .env.example", id="unknown"),
        pytest.param(b"log_level=info\n", "'log_level' is no setting; write LOG_LEVEL", id="lower case"),
        pytest.param(b"\r\n\r\nPORT=1\r\nPORT=1\r\n", "line 4: PORT stands in line 3 already", id="twice, CRLF"),
        pytest.param(b"TRAINING_DAYS 30\n", "line 1: 'TRAINING_DAYS' is no NAME=VALUE", id="no ="),
        pytest.param(b"PORT: 1\n", "line 1: 'PORT' is no NAME=VALUE", id="YAML"),
        pytest.param(b"hello world\n", "line 1: 'hello' is no NAME=VALUE", id="prose"),
        pytest.param(b"'PORT'=1\n", "line 1: the text (not shown", id="a quoted name"),
        pytest.param(b"=1\n", "line 1: the text (not shown", id="no name"),
        pytest.param(b'\nDATA_DIR="a\nPORT=1\n', "line 2: DATA_DIR: a quote is opened and not closed", id="open quote"),
        pytest.param(b"DATA_DIR='a\nSEED='1\n", "line 1: DATA_DIR: a quote is opened", id="a quote closed lines below"),
        pytest.param(b"DATA_DIR='a\nb'\n", "line 1: DATA_DIR: a quote is opened", id="over two lines"),
        pytest.param(b'PORT="1" 2\n', "line 1: PORT: there is text after the closing quote", id="after the quote"),
        pytest.param(
            b"TRUTH_VENUE= # off\n", "TRUTH_VENUE: docker compose takes the remark", id="a remark for a value"
        ),
        pytest.param(b"DATA_DIR=$HOME/x\n", "DATA_DIR: docker compose would put a variable", id="$"),
        pytest.param(b"SEED=1\nPORT=abc\n", "line 2: PORT='abc'", id="a wrong value"),
        pytest.param(b"DATA_DIR=~nobody-of-this-name/x\n", "there is no home ~nobody-of-this-name", id="no home"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_number(folder: Path, content: bytes, says: str) -> None:
    (folder / ".env").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(".env line ")
    assert says in line


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda path: path.mkdir(), ".env is a folder", id="folder"),
        pytest.param(lambda path: path.symlink_to("nowhere"), ".env is a link to a file that is not there", id="link"),
        pytest.param(
            lambda path: path.symlink_to("/proc/self/mem"), ".env cannot be read: Input/output", id="unreadable"
        ),
    ],
)
def test_what_is_no_file_that_can_be_read_is_one_line(folder: Path, make: object, says: str) -> None:
    make(folder / ".env")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=says):
        load_settings()


@pytest.mark.parametrize(
    "content",
    [
        f"TIINGO_API_KEY: {SECRET}",
        f"TIINGO_API_KEY {SECRET}",
        f'TIINGO_API_KEY="{SECRET}',
        f"TIINGO_APIKEY={SECRET}",
        f"TIINGO_API_KEY=${SECRET}",
        f"TIINGO_API_KEY='{SECRET}' {SECRET}",
        f"TIINGO_API_KEY={SECRET}\nTIINGO_API_KEY={SECRET}",
        SECRET,
        f"{SECRET}=",
        f"zoo {SECRET} zoo zoo zoo zoo",
        f"BINANCE_REST_URLS=htp://me:{SECRET}@host/",
        f"BINANCE_REST_URLS=htp://host/?key={SECRET}",
    ],
)
def test_a_key_is_never_shown(folder: Path, content: str) -> None:
    (folder / ".env").write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert SECRET not in str(caught.value)
    assert ".env line " in str(caught.value)


def test_a_key_after_a_broken_byte_is_not_shown(folder: Path) -> None:
    (folder / ".env").write_bytes(f"TIINGO_API_KEY={SECRET}".encode() + b"\xff")
    with pytest.raises(ConfigError, match="0xff after TIINGO_API_KEY=") as caught:
        load_settings()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"PORT=81\nLOG_LEVEL=INFO", id="no newline at the end"),
        pytest.param(b"\r\n# x\r\nPORT=81\r\nLOG_LEVEL=Info\r\n", id="CRLF"),
        pytest.param(b"\xef\xbb\xbfPORT=81\nLOG_LEVEL=INFO\n", id="UTF-8 with its mark"),
        pytest.param(b"export PORT=81\n LOG_LEVEL = INFO\n", id="export and blanks"),
        pytest.param(b"PORT='81' # x\nLOG_LEVEL=\"INFO\"\n", id="quotes"),
        pytest.param(b"PORT=81 # x\nSEED=\nLOG_LEVEL=info\n", id="remark, empty value"),
        pytest.param(
            b"COMPOSE_FILE=a:b\nDOCKER_HOST=$x\nBUILDKIT_PROGRESS=plain\nhttp_proxy=x\nNO_PROXY=y\nNO_COLOR=1\nTZ=UTC\nSOURCE_DATE_EPOCH=0\nPYTHONUNBUFFERED=1\nLC_ALL=C\nNODE_UID=7\n"
            b"PORT=81\nLOG_LEVEL=INFO",
            id="names of docker, compose and proxies",
        ),
        pytest.param(
            b"COMPOSE_PROFILES=\nCOMPOSE_ENV_FILES=a,b\nCOMPOSE_SOMETHING_NEW=1\nPORT=81\nLOG_LEVEL=INFO",
            id="names of compose, known and new",
        ),
    ],
)
def test_what_docker_compose_reads_is_read(folder: Path, content: bytes) -> None:
    (folder / ".env").write_bytes(content)
    settings = load_settings()
    assert (settings.port, settings.log_level, settings.seed) == (81, "info", 0)


def test_words_are_read_in_any_case(folder: Path) -> None:
    (folder / ".env").write_text(
        "MARKET=Simulated\nNO_MODEL_POLICY=REFUSE\nLOG_LEVEL=Warning\n"
        "MARKET_VENUES=Kraken, Binance\nTRUTH_VENUE=Atlas\n"
    )
    read = load_settings()
    assert (read.market, read.no_model_policy, read.log_level) == (Market.SIMULATED, NoModelPolicy.REFUSE, "warning")
    assert (read.venues, read.truth_venue) == (("kraken", "binance"), "atlas")


def test_a_tilde_is_the_home_and_no_folder_of_that_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / ".env").write_text(
        "DATA_DIR=~/data\nCONFIG_FILE=a.json,~/b.json\nDATABASE_URL=sqlite:///~/answers.sqlite3\n"
    )
    settings = load_settings()
    assert settings.ledger_url == f"sqlite:///{folder}/home/answers.sqlite3"
    assert settings.data_dir == folder / "home" / "data"
    assert settings.config_files == (Path("a.json"), folder / "home" / "b.json")


def test_the_environment_wins_and_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("PORT=81\nSEED=3\n")
    monkeypatch.setenv("PORT", "abc")
    with pytest.raises(ConfigError, match="environment: PORT='abc'"):
        load_settings()
    assert load_settings(port=82).port == 82
    monkeypatch.setenv("PORT", "")
    assert load_settings().port == 81


def test_a_misspelt_name_in_the_environment_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_warnings() == []
    monkeypatch.setenv("TRAINING_DAY", "30")
    for common in ("LOGLEVEL", "HOSTNAME", "DATADIR", "MARKETS", "CONFIG_FILES", "DATABASE_URI", "market_venues"):
        monkeypatch.setenv(common, "x")
    (line,) = settings_warnings()
    assert "TRAINING_DAY is no setting and does nothing; did you mean TRAINING_DAYS?" in line


def test_a_retired_name_warns_and_does_nothing(folder: Path) -> None:
    (folder / ".env").write_text(f"\nCOINGECKO_API_KEY={SECRET}\nCOINGECKO_REST_URLS=\n")
    load_settings()
    why = "is not read any more; CoinGecko is no longer a venue: remove the line"
    assert settings_warnings() == [f".env line 2: COINGECKO_API_KEY {why}", f".env line 3: COINGECKO_REST_URLS {why}"]


def test_a_replaced_name_is_read_and_warns_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text(f"TIINGO_API_KEY={SECRET}\nKRAKEN_REST_URLS=\n")
    monkeypatch.setenv("BINANCE_US_REST_URLS", "http://a")
    settings = load_settings()
    assert (settings.key_of("tiingo"), settings.urls_of("binanceus")) == (SECRET, ("http://a",))
    assert settings_warnings() == [
        ".env line 1: TIINGO_API_KEY is still read; write tiingo=KEY in VENUE_KEYS, which replaces it",
        "environment: BINANCE_US_REST_URLS is still read; write binanceus=URL in VENUE_URLS, which replaces it",
    ]


@given(st.binary(max_size=60) | st.text("PORT=1\n\r'\"# $\\é", max_size=30).map(str.encode))
def test_any_bytes_are_read_or_refused_in_a_line_each(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(content)
    try:
        read_env_file(path, setting_names())
    except ConfigError as error:
        assert all(line.startswith(f"{path} line ") for line in str(error).splitlines())  # noqa: PT017


@pytest.mark.parametrize("module", ["cli.main", "door", "inference", "updater", "worker"])
def test_every_process_says_it_in_one_line(folder: Path, module: str) -> None:
    (folder / ".env").write_text("TRAINING_DAY=30\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = ["-m", module, *(["run"] if module == "cli.main" else [])]
    ended = python(*command, env=environment, cwd=folder)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert ".env line 1: 'TRAINING_DAY' is no setting" in line
