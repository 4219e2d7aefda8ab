"""The agent turns a word into a dataset and a bucket, and closes what it opened."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncagent.agent import Agent, default_name, is_location
from syncagent.config import load
from syncagent.drivers import Bucket, open_bucket, parse_url
from syncagent.errors import ConfigError, NotFound, SyncAgentError
from syncagent.model import Integration
from tests.rigs.catalogs import url_of


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("a")
    with Agent(load(catalog=url_of(tmp_path / "catalog.db"))) as made:
        yield made


@pytest.mark.parametrize("word", ["s3://b", "/abs", "./rel", "../up", "~", "~/photos", ".", ".."])
def test_locations(word: str) -> None:
    assert is_location(word)


@pytest.mark.parametrize("word", ["photos", "bucket/path", ".hidden", "a..b"])
def test_names(word: str) -> None:
    assert not is_location(word)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("memory://bucket", "bucket"),
        ("s3://bucket/train/", "bucket/train"),
        ("az://account/container/path", "container/path"),
        ("/data/photos", "photos"),
        ("/", "root"),
    ],
)
def test_default_names(url: str, name: str) -> None:
    assert default_name(parse_url(url)) == name


def test_a_folder_is_mirrored_under_its_name_and_found_again(agent: Agent) -> None:
    made = agent.resolve("./photos", create=True)
    assert made.name == "photos"
    assert (
        agent.resolve("photos")
        == agent.resolve("./photos")
        == agent.resolve(str(Path.cwd() / "photos"))
        == made
    )


def test_a_source_that_has_a_dataset_keeps_it(agent: Agent) -> None:
    made = agent.resolve("./photos", name="mine", create=True)
    assert agent.resolve("./photos", create=True) == made
    assert [dataset.name for dataset in agent.catalog.datasets()] == ["mine"]


def test_a_folder_named_without_a_slash(agent: Agent) -> None:
    assert agent.resolve("photos", create=True).name == "photos"


def test_a_dataset_wins_over_a_folder_of_the_same_name(agent: Agent) -> None:
    made = agent.resolve("memory://elsewhere", name="photos", create=True)
    assert agent.resolve("photos") == made
    assert agent.spec("photos").type == "memory"


def test_nothing_is_made_unless_asked(agent: Agent) -> None:
    with pytest.raises(
        NotFound, match=r"no dataset mirrors .*/photos; make one with 'syncagent sync ./photos'"
    ):
        agent.resolve("./photos")
    assert agent.catalog.datasets() == []


def test_an_unknown_name(agent: Agent) -> None:
    with pytest.raises(NotFound):
        agent.resolve("nowhere", create=True)


def test_a_name_that_mirrors_something_else(agent: Agent) -> None:
    agent.resolve("memory://one", name="taken", create=True)
    with pytest.raises(
        ConfigError, match=r"'taken' mirrors memory://one; name the one for memory://two with --dataset"
    ):
        agent.resolve("memory://two", name="taken", create=True)


def test_a_second_name_for_a_named_dataset(agent: Agent) -> None:
    agent.resolve("./photos", create=True)
    with pytest.raises(ConfigError, match="--dataset other"):
        agent.resolve("photos", name="other", create=True)


def test_another_integration_is_not_passed_over(agent: Agent) -> None:
    agent.catalog.create_integration(Integration("mine", "s3", {"key": "k", "secret": "s"}))
    made = agent.resolve("memory://sealed", integration="mine", create=True)
    assert made.driver.integration == "mine"
    assert agent.resolve("memory://sealed", integration="mine") == made
    agent.resolve("./photos", create=True)
    for target in ("./photos", "photos"):
        with pytest.raises(ConfigError, match="with the default credentials, not with 'mine'"):
            agent.resolve(target, integration="mine")


def test_an_unknown_integration(agent: Agent) -> None:
    with pytest.raises(NotFound):
        agent.resolve("memory://sealed", integration="nobody", create=True)
    assert agent.catalog.datasets() == []


def test_planning_stores_nothing(agent: Agent) -> None:
    name = f"plan-{uuid.uuid4().hex}"
    with open_bucket(f"memory://{name}") as bucket:
        bucket.put("a", io.BytesIO(b"a"))
    assert [outcome.key for outcome in agent.planner(f"memory://{name}").plan()] == ["a"]
    assert agent.catalog.datasets() == agent.catalog.drivers() == []


def test_planning_a_dataset_whose_folder_is_gone(agent: Agent) -> None:
    agent.resolve("./photos", create=True)
    Path("photos/a.jpg").unlink()
    Path("photos").rmdir()
    for target in ("photos", "./photos"):
        with pytest.raises(NotFound, match="no such folder"):
            agent.planner(target)


def test_a_catalog_that_cannot_be_opened_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(*_: object, **__: object) -> None:
        tried.append(1)
        raise ConfigError("broken")

    monkeypatch.setattr("syncagent.agent.open_catalog", fail)
    with pytest.raises(ConfigError, match="broken"), Agent(load(catalog=str(tmp_path / "c.db"))) as agent:
        agent.resolve("photos")
    assert tried == [1]


def test_everything_is_closed(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    dataset = agent.resolve("./photos", create=True)

    def close(bucket: Bucket) -> None:
        closed.append(bucket)

    monkeypatch.setattr(Bucket, "close", close)
    bucket = agent.reconciler(dataset).bucket
    agent.close()
    agent.close()  # twice is fine
    assert closed == [bucket]
    with pytest.raises(SyncAgentError):
        agent.catalog.datasets()


def test_a_url_with_less_said_opens_the_same_dataset(agent: Agent) -> None:
    made = agent.resolve("memory://one?region=north&allow_delete=yes", create=True)
    assert agent.resolve("memory://one") == made


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://one?allow_delete=yes", "allow_external_delete=True"),
        ("memory://one?region=south", "region=south"),
        ("memory://one?sorted=no", "sorted=no"),
    ],
)
def test_a_url_that_asks_for_other_settings_is_refused(agent: Agent, url: str, said: str) -> None:
    agent.resolve("memory://one?region=north", create=True)
    with pytest.raises(ConfigError, match=f"opens its bucket without {said}"):
        agent.resolve(url)


def test_a_folder_that_is_gone_says_nothing_about_its_files(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    reconciler = agent.reconciler(agent.resolve(str(folder), create=True))
    reconciler.sweep()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(NotFound, match=r"no such folder: .*mounted; is it unmounted\?"):
        reconciler.settle("a.txt")
    assert [item.key for item in agent.catalog.items(reconciler.dataset.id)] == ["a.txt"]
