"""`syncagent package`, without a network: what is chosen, what is left out, what is written."""

from __future__ import annotations

import gzip
import hashlib
import json
import marshal
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from click.testing import CliRunner

from syncagent import packaging
from syncagent.cli import cli
from syncagent.errors import ConfigError, Transient
from syncagent.packaging import Target, bytecode, wheels
from syncagent.packaging.archive import write_zip
from syncagent.packaging.code import own_files
from syncagent.packaging.targets import AWS, AZURE, CLOUDS, GCP, Cloud
from syncagent.packaging.wheels import Pinned, Wheel, fetch, needed, pinned, unpack

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
ALL = list(CLOUDS.values())


def wheel(
    folder: Path, name: str = "thing", version: str = "1.0", needs: tuple[str, ...] = (), **files: str | bytes
) -> Wheel:
    """A wheel of a pure package; `files` have ``__`` for a slash."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in needs) + "\n# A long story\n"
    with ZipFile(path, "w") as made:
        for file, text in files.items():
            made.writestr(file.replace("__", "/"), text)
        made.writestr(f"{name}-{version}.dist-info/METADATA", metadata)
        made.writestr(
            f"{name}-{version}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        made.writestr(f"{name}-{version}.dist-info/RECORD", "")
    return wheels._wheel(path)


# -- targets -------------------------------------------------------------------------------------


def test_the_python_that_runs_is_the_default_where_the_cloud_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert Target(AWS).python == "3.12"
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    assert Target(AWS).python == list(AWS.glibc)[-1]


@pytest.mark.parametrize(
    ("cloud", "python", "arch", "named"),
    [
        (AWS, "3.8", "x86_64", "choose 3.11"),
        (GCP, "3.12", "arm64", "choose x86_64"),
        (AZURE, "3.12", "riscv", "choose"),
    ],
)
def test_what_a_cloud_does_not_have_is_refused(cloud: Cloud, python: str, arch: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Target(cloud, python, arch)


def test_wheels_are_chosen_by_the_clouds_own_libraries() -> None:
    tags = list(Target(AWS, "3.11", "arm64").platforms())
    assert tags[0] == "manylinux_2_26_aarch64"
    assert tags[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert not [tag for tag in tags if "x86" in tag]


# -- locks ---------------------------------------------------------------------------------------


def test_markers_are_the_targets_and_not_this_machines(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(
        "new==1 ; python_full_version >= '3.13' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "# a remark\nold==2 ; python_version < '3.13' --hash=sha256:cc\nwin==3 ; sys_platform == 'win32' --hash=sha256:dd\n"
        "arm==4 ; platform_machine == 'aarch64' --hash=sha256:ee\nAny_Name==5 --hash=sha256:ff\n"
    )
    assert pinned([lock], Target(AWS, "3.13", "x86_64")) == [
        Pinned("any-name", "5", ("sha256:ff",)), Pinned("new", "1", ("sha256:aa", "sha256:bb")),
    ]  # fmt: skip
    assert [one.name for one in pinned([lock], Target(AWS, "3.12", "arm64"))] == ["any-name", "arm", "old"]
    assert pinned([lock], Target(AWS, "3.13"))[1].line == "new==1 --hash=sha256:aa --hash=sha256:bb"


@pytest.mark.parametrize("cloud", ALL, ids=lambda cloud: cloud.name)
@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-labels.txt"])
def test_a_lock_pins_what_the_project_needs_at_the_versions_that_are_tested(cloud: Cloud, lock: str) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = {one.name: one for one in pinned([cloud.folder / lock], Target(cloud))}
    tested = {
        canonicalize_name(name): version
        for name, version in re.findall(
            r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE
        )
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        {"aws": "s3", "gcp": "gcs", "azure": "azure"}[cloud.name],
        *(["ingest"] if "labels" in lock else []),
    ]
    wanted = project["dependencies"] + [
        one for extra in extras for one in project["optional-dependencies"][extra]
    ]
    for text in wanted:
        requirement = Requirement(text)
        found = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(found.version), text
    for name, one in locked.items():
        assert one.hashes, name
        assert one.version == tested.get(name, one.version), f"{name}: run scripts/locks.sh"


@pytest.mark.parametrize("cloud", ALL, ids=lambda cloud: cloud.name)
def test_what_a_handler_runs_without_is_there_to_be_left_out(cloud: Cloud) -> None:
    locked = {one.name for one in pinned([cloud.folder / "requirements.txt"], Target(cloud))}
    assert set(cloud.without) <= locked
    assert cloud.installs is None or cloud.installs in locked


# -- fetching ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        ("No module named pip", ConfigError, "ensurepip"),
        (
            "ERROR: No matching distribution found for thing==1",
            ConfigError,
            "thing==1 has no wheel for Python 3.12 with glibc 2.34 on arm64",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching distribution found for thing==1",
            Transient,
            "cannot reach its package index",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", ConfigError, "its hash differs"),
        ("WARNING: x\nERROR: the network is away", Transient, "the network is away"),
        ("it broke\nin two lines", Transient, "it broke in two lines"),
        ("ERROR: 403 for https://me:secret@index/simple", Transient, "403 for https://…@index/simple"),
    ],
)
def test_pips_failures_are_one_line(
    told: str, kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = subprocess.CompletedProcess([], 1, "", told)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(kind, match=re.escape(said)) as raised:
        fetch([], Target(AWS, "3.12", "arm64"), tmp_path / "wheels")
    assert "\n" not in str(raised.value)


def test_a_package_that_is_not_what_the_lock_says_is_refused(tmp_path: Path) -> None:
    """By pip itself, from a folder in the index's place."""
    made = wheel(tmp_path, thing="x")
    wrong = Pinned("thing", "1.0", (f"sha256:{'0' * 64}",))
    right = Pinned("thing", "1.0", (f"sha256:{made.sha256}",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(tmp_path))
        with pytest.raises(ConfigError, match="hash differs"):
            fetch([wrong], Target(AWS), tmp_path / "a/wheels")
        (found,) = fetch([right], Target(AWS), tmp_path / "b/wheels")
        with pytest.raises(ConfigError, match="no wheel"):
            fetch([Pinned("nothing", "1", right.hashes)], Target(AWS), tmp_path / "c/wheels")
    assert (found.name, found.version, found.license) == ("thing", "1.0", "MIT")


# -- unpacking -----------------------------------------------------------------------------------


def test_files_go_where_an_installer_puts_them(tmp_path: Path) -> None:
    made = wheel(
        tmp_path, **{
            "thing__a.py": "a", "thing__tests__test_a.py": "t", "thing__a.pyi": "s", "thing__native.so": "n",
            "thing-1.0.data__platlib__thing__b.py": "b", "thing-1.0.data__scripts__run": "r", "thing-1.0.dist-info__licenses__LICENSE.md": "l",
        },
    )  # fmt: skip
    assert set(unpack([made], AWS)) == {
        "thing/a.py", "thing/b.py", "thing/native.so", "thing-1.0.dist-info/METADATA", "thing-1.0.dist-info/licenses/LICENSE.md",
    }  # fmt: skip


def test_of_a_packages_metadata_the_readme_stays_at_home(tmp_path: Path) -> None:
    told = unpack([wheel(tmp_path, needs=("other>=1",))], AWS)["thing-1.0.dist-info/METADATA"].decode()
    assert "Requires-Dist: other>=1" in told
    assert "story" not in told


def test_what_a_package_needs_on_the_target(tmp_path: Path) -> None:
    made = [
        wheel(
            tmp_path, "top", needs=("Middle_One>=1", "old; python_version < '3.12'", "extra; extra == 'more'")
        ),
        wheel(tmp_path, "middle-one", needs=("top", "bottom[x]")),
        *(wheel(tmp_path, name) for name in ("bottom", "old", "extra", "unrelated")),
    ]
    assert needed("top", made, Target(GCP, "3.12")) == {"top", "middle-one", "bottom"}
    assert needed("top", made, Target(GCP, "3.11")) == {"top", "middle-one", "bottom", "old"}


def test_two_packages_with_one_file(tmp_path: Path) -> None:
    one, two = wheel(tmp_path, "one", shared__a="x"), wheel(tmp_path, "two", shared__a="x")
    assert unpack([one, two], AWS)["shared/a"] == b"x"
    with pytest.raises(ConfigError, match="two packages have a file shared/a"):
        unpack([one, wheel(tmp_path, "three", shared__a="y")], AWS)


@pytest.mark.parametrize("name", ["../outside.py", "/etc/outside.py", "a/../../outside.py"])
def test_a_path_outside_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="outside"):
        unpack([wheel(tmp_path, **{name: "x"})], AWS)


def test_what_the_handler_does_not_open_is_left_out(tmp_path: Path) -> None:
    names = [
        "s3/2006/paginators-1.json",
        "sts/2011/x.json",
        "ec2/2016/x.json",
        "s3control/x.json",
        "partitions.json",
    ]
    made = wheel(tmp_path, **{f"botocore/data/{name}": "x" for name in names})
    kept = {
        name.removeprefix("botocore/data/") for name in unpack([made], AWS) if name.startswith("botocore")
    }
    assert kept == {"s3/2006/paginators-1.json", "sts/2011/x.json", "partitions.json"}


def test_botocores_tables_are_trimmed(tmp_path: Path) -> None:
    endpoints = {"partitions": [{"partition": "aws", "services": {"s3": {"a": 1}, "ec2": {"b": 2}}}]}
    service = {
        "documentation": "<p>long</p>",
        "shapes": {
            "A": {"type": "structure", "members": {"documentation": {"shape": "B", "documentation": "x"}}}
        },
    }
    made = wheel(
        tmp_path, **{
            "botocore/data/endpoints.json": json.dumps(endpoints),
            "botocore/data/s3/2006-03-01/service-2.json.gz": gzip.compress(json.dumps(service).encode()),
        },
    )  # fmt: skip
    files = unpack([made], AWS)
    assert json.loads(files["botocore/data/endpoints.json"])["partitions"][0]["services"] == {"s3": {"a": 1}}
    assert json.loads(files["botocore/data/s3/2006-03-01/service-2.json"]) == {
        "documentation": "",
        "shapes": {
            "A": {"type": "structure", "members": {"documentation": {"shape": "B", "documentation": ""}}}
        },
    }


# -- our own code --------------------------------------------------------------------------------


@cache
def own(cloud: str, *, labels: bool) -> dict[str, bytes]:
    """Found once: to read the imports of a hundred modules takes half a second."""
    return own_files(CLOUDS[cloud], labels=labels)


@pytest.mark.parametrize("cloud", ALL, ids=lambda cloud: cloud.name)
@pytest.mark.parametrize("labels", [False, True], ids=["plain", "labels"])
def test_the_handlers_modules_and_no_other_clouds(cloud: Cloud, labels: bool) -> None:
    files = own(cloud.name, labels=labels)
    assert all((ROOT / "syncagent" / name).read_bytes() == data for name, data in files.items())
    tops = {name.partition("/")[0] for name in files}
    assert not tops & {"cli", "server", "daemon", "packaging", "_deploy"}
    assert ("ingest" in tops) is labels
    mine = {"aws": "s3", "gcp": "gcs", "azure": "azure"}
    for other, prefix in mine.items():
        drivers = [name for name in files if name.startswith(f"drivers/{prefix}")]
        assert bool(drivers) is (other == cloud.name), drivers
    assert f"handlers/{cloud.name}.py" in files
    assert "catalog/sql/migrations/0001_initial.sql" in files


@pytest.mark.parametrize("cloud", ALL, ids=lambda cloud: cloud.name)
def test_labels_bring_every_reader_along(cloud: Cloud) -> None:
    files = own(cloud.name, labels=True)
    there = {
        path.relative_to(ROOT / "syncagent").as_posix()
        for path in (ROOT / "syncagent/ingest/formats").glob("*.py")
    }
    assert there <= set(files)


@pytest.mark.parametrize("cloud", ALL, ids=lambda cloud: cloud.name)
@pytest.mark.parametrize("labels", [False, True], ids=["plain", "labels"])
def test_every_module_of_an_archive_can_be_loaded_from_it(cloud: Cloud, labels: bool, tmp_path: Path) -> None:
    files = own(cloud.name, labels=labels)
    for name, data in files.items():
        path = tmp_path / "syncagent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in files
        if name.endswith(".py")
    ]
    code = (
        f"import importlib, sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport syncagent\n"
        f"assert syncagent.__file__.startswith({str(tmp_path)!r})\n"
        f"for name in {[one for one in modules if one != '__init__']}: importlib.import_module('syncagent.' + name)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the archive ---------------------------------------------------------------------------------


def test_a_zip_depends_on_its_files_only(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"b": b"2", "a": b"1"})
    write_zip(tmp_path / "b.zip", {"a": b"1", "b": b"2"})
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["a", "b"]
        assert all(one.external_attr >> 16 == 0o644 for one in archive.infolist()), "another user reads it"


def test_bytecode_is_the_same_wherever_it_is_made_and_names_no_folder() -> None:
    source = b"'''Doc of the module.'''\nfrom __future__ import annotations\n\ndef f(x):\n    'Doc of f.'\n    return x in {'a', 'b', 'c'}\n"
    made = []
    for _ in range(2):  # each time with hashes of its own
        files = {"pkg/one.py": source, "pkg/data.txt": b"x"}
        assert bytecode.add_bytecode(files, Target(AWS, HERE))
        made.append(files)
    assert made[0] == made[1]
    (name,) = set(made[0]) - {"pkg/one.py", "pkg/data.txt"}
    assert re.fullmatch(r"pkg/__pycache__/one\.cpython-3\d+\.pyc", name)
    assert b"syncagent-compile" not in made[0][name]
    assert b"Doc of" not in made[0][name]
    scope: dict[str, Any] = {}
    exec(marshal.loads(made[0][name][16:]), scope)  # noqa: S102, S302  # it is ours
    assert (scope["f"]("a"), scope["f"].__doc__) == (True, None)
    assert made[0][name][4] & 0b11 == 0b01, "never compared with a source, whose time a zip changes"


def test_where_sources_do_not_stay_python_finds_what_was_made_of_them(tmp_path: Path) -> None:
    """Google's build compiles every source anew: what is to stay has none."""
    files = {"main.py": b"import pkg.one", "packages/pkg/one.py": b"x = 1 / 0", "packages/pkg/data.txt": b"x"}
    assert bytecode.add_bytecode(files, Target(GCP, HERE))
    assert set(files) == {"main.py", "packages/pkg/one.pyc", "packages/pkg/data.txt"}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'packages')!r}); import pkg.one"]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert 'File "packages/pkg/one.py", line 1' in told, "a traceback still says where"
    assert "ZeroDivisionError" in told


def test_without_such_a_python_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(one for one in AWS.glibc if one != HERE)
    monkeypatch.setattr(bytecode.shutil, "which", lambda _: None)
    files = {"a.py": b""}
    assert bytecode.add_bytecode(files, Target(AWS, other)) is None
    monkeypatch.setattr(bytecode.shutil, "which", lambda _: sys.executable)  # it lies about its version
    assert bytecode.add_bytecode(files, Target(AWS, other)) is None
    assert set(files) == {"a.py"}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Wheel:
    """One package in place of all."""
    made = wheel(tmp_path, thing="x")
    monkeypatch.setattr(packaging, "fetch", lambda *_: [made])
    return made


def test_a_folder_that_cannot_be_written_to_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told: list[str] = []
    with pytest.raises(NotADirectoryError):
        packaging.package(Target(AWS), tmp_path / "file/dist", on_step=told.append)
    assert told == []


def test_an_archive_that_is_not_compiled_says_so(
    fetched: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytecode.shutil, "which", lambda _: None)
    other = next(one for one in AWS.glibc if one != HERE)
    for python, said in ((HERE, False), (other, True)):
        told: list[str] = []
        packaging.package(Target(AWS, python), tmp_path / python, on_step=told.append)
        assert any(f"no Python {python} here" in one for one in told) is said


@pytest.mark.parametrize("cloud", ALL, ids=lambda cloud: cloud.name)
def test_what_is_written(
    cloud: Cloud, fetched: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = HERE if HERE in cloud.glibc else next(iter(cloud.glibc))
    installed = wheel(tmp_path, cloud.installs, functions_framework="x") if cloud.installs else None
    if installed:
        monkeypatch.setattr(packaging, "fetch", lambda *_: [installed, fetched])
    made = packaging.package(Target(cloud, python), tmp_path / "one")
    again = packaging.package(Target(cloud, python), tmp_path / "two")
    for mine, other in (
        (made.archive, again.archive),
        (made.template, again.template),
        (made.bom, again.bom),
    ):
        assert mine.read_bytes() == other.read_bytes()
    assert made.sha256 == hashlib.sha256(made.archive.read_bytes()).hexdigest()
    for line in made.checksums.read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((tmp_path / "one" / name).read_bytes()).hexdigest() == digest
    with ZipFile(made.archive) as archive:
        names = set(archive.namelist())
    assert set(cloud.entry) <= names
    assert {f"{cloud.below}syncagent/handlers/{cloud.name}.{'py' if cloud.sources else 'pyc'}", f"{cloud.below}thing"} <= names  # fmt: skip
    wheels = {name for name in names if name.startswith("wheels/")}
    assert wheels == ({f"wheels/{installed.path.name}"} if installed else set())
    assert not [name for name in names if name.startswith(".python_packages") and not cloud.below]
    bom = json.loads(made.bom.read_text())
    assert bom["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": made.sha256}]
    assert {one["purl"]: one.get("hashes") for one in bom["components"]}["pkg:pypi/thing@1.0"] == [
        {"alg": "SHA-256", "content": fetched.sha256}
    ]


@pytest.mark.parametrize(("cloud", "python"), [(cloud, python) for cloud in ALL for python in cloud.glibc])
def test_the_template_fits_its_archive(cloud: Cloud, python: str) -> None:
    text = packaging._template(Target(cloud, python, cloud.archs[0]))
    theirs = (cloud.folder / cloud.template).read_text()
    changed = [line for line, old in zip(text.splitlines(), theirs.splitlines(), strict=True) if line != old]
    assert len(changed) <= 2, "nothing but the defaults"
    wanted = {"aws": f"Runtime: python{python}\n", "gcp": python.replace(".", ""), "azure": f"'{python}'"}[
        cloud.name
    ]
    assert wanted in text or f'"{python}"' in text


def test_the_command(fetched: Wheel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli, ["package", "aws", "-o", str(out), "--python", "3.12", "--arch", "arm64", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert Path(told["archive"]).stat().st_size == told["size"]
    assert "Architectures: [arm64]" in (out / "template.yaml").read_text()
    done = CliRunner().invoke(cli, ["package", "aws", "-o", str(out), "--python", "3.8"])
    assert isinstance(done.exception, ConfigError)
    assert {path.name for path in out.iterdir()} == {
        "syncagent-aws.zip",
        "template.yaml",
        "syncagent-aws.cdx.json",
        "syncagent-aws.sha256",
    }


@pytest.mark.parametrize("cloud", ALL, ids=lambda cloud: cloud.name)
def test_the_command_lists_all_that_it_wrote(
    cloud: Cloud, fetched: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cloud.installs:
        found = [wheel(tmp_path, cloud.installs, functions_framework="x"), fetched]
        monkeypatch.setattr(packaging, "fetch", lambda *_: found)
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["package", cloud.name, "-o", str(out)])
    assert done.exit_code == 0, done.output
    listed = [line.partition("  ")[0] for line in done.stdout.splitlines()]
    assert sorted(listed) == sorted(map(str, out.iterdir()))
    done = CliRunner().invoke(cli, ["package", cloud.name, "-o", str(out), "--json"])
    assert json.loads(done.stdout)["beside"] == [str(out / name) for name in cloud.beside]


def test_an_installed_syncagent_has_its_deploy_folders() -> None:
    """The wheel holds what `package` reads."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"] == {
        f"deploy/{name}": f"syncagent/_deploy/{name}" for name in sorted(CLOUDS)
    }
