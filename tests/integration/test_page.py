"""The page in a real browser, over a real server and a catalog that mirrors real files."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Dialog, Page, Route, expect, sync_playwright

from syncagent import Reconciler, open_bucket, open_catalog
from syncagent.errors import AccessDenied
from syncagent.server.page import FILES
from tests.rigs.catalogs import url_of
from tests.rigs.server import EMAIL, OTHER, PASSWORD, ROOT, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SCRIPT = "<script>alert(1)<script>.jpg"
HOSTILE = [
    SCRIPT,
    "<img src=x onerror=alert(1)>.jpg",
    "new\nline.jpg",
    "turn-\u202egpj.exe.jpg",
    "emoji-😀.jpg",
    'q"&amp;.jpg',
]
FRAMES = 60
TAKEN = "photos/train/street-001.jpg"


@dataclass
class Catalog:
    """The server, and what its catalog holds."""

    url: str
    dataset: str
    api: httpx.Client
    session: str
    items: dict[str, str] = field(default_factory=dict)
    """Id by filename."""

    def query(self, **wanted: Any) -> list[dict[str, Any]]:
        body = {"resource": "items", "filter": wanted, "pageSize": 1000}
        found: list[dict[str, Any]] = self.ok("POST", f"datasets/{self.dataset}/query", body)["items"]
        return found

    def ok(self, method: str, path: str, body: Any) -> Any:
        answer = self.api.request(method, f"/api/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("page")
    _mirror(folder)
    with serving(folder) as rig, httpx.Client(base_url=rig.url) as api:
        told = api.post("/token?default", json={"username": EMAIL, "password": PASSWORD}).json()
        api.headers["Authorization"] = f"Bearer {told['id_token']}"
        session = {
            "email": EMAIL, "token": told["id_token"], "refresh": told["refresh_token"],
            "until": int(time.time() * 1000) + told["expires_in"] * 1000,
        }  # fmt: skip
        found = api.post("/api/v1/datasets/query", json={"filter": {"$and": [{"name": "photos"}]}}).json()[
            "items"
        ][0]
        made = Catalog(rig.url, found["id"], api, json.dumps(session))
        made.items = {one["filename"].removeprefix("/"): one["id"] for one in made.query(type="file")}
        _annotate(made, found["projects"][0])
        _overwrite(folder)
        yield made


def _mirror(folder: Path) -> None:
    """A folder of images, mirrored before and after it changes."""
    files = folder / "photos"
    shutil.copytree(ROOT / "examples/bucket", files)
    for number in range(FRAMES):
        (files / f"many/{number // 50}").mkdir(parents=True, exist_ok=True)
        shutil.copy(
            files / f"photos/train/street-{number % 14:03}.jpg",
            files / f"many/{number // 50}/frame-{number:03}.jpg",
        )
    (files / "hostile").mkdir()
    for name in HOSTILE:
        shutil.copy(files / TAKEN, files / "hostile" / name)
    lying = Image.new("RGB", (120, 80), "white")
    ImageDraw.Draw(lying).rectangle((0, 40, 40, 80), fill="red")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees: the red is then at the left of the top
    lying.save(files / "lying.jpg", exif=exif, quality=95)
    catalog = open_catalog(url_of(folder / "catalog.db"))
    with open_bucket(str(files)) as bucket:
        dataset = catalog.ensure_dataset("photos", bucket.spec)
        assert Reconciler(catalog, dataset, bucket).sweep().added > FRAMES
        (files / "photos/val/street-004.jpg").unlink()
        (files / "graphics/logo.png").rename(files / "graphics/brand.png")
        (files / "text/consent.txt").write_text("<b>bold</b>\twith a \u202e turn\n")
        report = Reconciler(catalog, dataset, bucket).sweep()
        assert (report.changed, report.moved, report.removed) == (1, 1, 1)
    catalog.quarantine(dataset.id, "bad\nkey", AccessDenied("no right to read it"))
    catalog.close()


def _overwrite(folder: Path) -> None:
    """Another image under the name of an annotated one."""
    files = folder / "photos/photos/train"
    shutil.copy(files / "street-004.jpg", files / "street-000.jpg")
    catalog = open_catalog(url_of(folder / "catalog.db"))
    dataset = catalog.dataset("photos")
    with open_bucket(str(folder / "photos")) as bucket:
        assert Reconciler(catalog, dataset, bucket).sweep().changed == 1
    catalog.close()


def _at(x: float, y: float) -> dict[str, float]:
    return {"x": x, "y": y, "z": 0}


def _square(left: int, top: int, side: int) -> list[dict[str, float]]:
    return [_at(left, top), _at(left + side, top), _at(left + side, top + side), _at(left, top + side)]


def _annotate(catalog: Catalog, project: str) -> None:
    """One annotation of each type that has a place in an image, in colours of a recipe; and the examples' own."""
    ontology = catalog.ok("POST", "ontologies", {"projectIds": [project], "roots": []})["id"]
    nodes = [
        {"tag": "car", "color": "#ff8800"},
        {"tag": "animal", "color": "#00cc44"},
        {"tag": "animal.cat", "color": "#cc00cc"},
    ]
    catalog.ok("PATCH", f"ontologies/{ontology}/labels", {"labelsNode": nodes, "upsert": True})
    colour = {"key": "1", "title": "paint", "type": "options", "values": ["red"], "scope": ["*"]}
    catalog.ok("PATCH", f"ontologies/{ontology}/attributes", {"items": [colour], "upsert": True})
    recipe = catalog.ok("POST", "recipes", {"projectIds": [project], "ontologyIds": [ontology]})["id"]
    catalog.ok("PATCH", f"datasets/{catalog.dataset}", {"metadata": {"system": {"recipes": [recipe]}}})
    catalog.ok("PATCH", f"items/{catalog.items[TAKEN]}", {"metadata": {"user": {"camera": "<i>north</i>"}}})
    mask = Image.new("RGBA", (240, 160))
    ImageDraw.Draw(mask).rectangle((160, 20, 220, 70), fill=(1, 2, 3, 255))
    png = io.BytesIO()
    mask.save(png, "PNG")
    front, back = (
        dict(zip(("tl", "tr", "br", "bl"), _square(*place, 40), strict=True))
        for place in ((160, 100), (175, 90))
    )
    cube = {
        f"{side}_{name}": point
        for side, face in (("front", front), ("back", back))
        for name, point in face.items()
    }
    drawn: list[dict[str, Any]] = [
        {"type": "box", "label": "car", "coordinates": [_at(20, 30), _at(80, 60), 30], "metadata": {"system": {"attributes": {"1": "red"}}}},
        {"type": "segment", "label": "animal.cat", "coordinates": [_square(100, 100, 40)]},
        {"type": "polyline", "label": "lane", "coordinates": [[_at(0, 150), _at(60, 110)]]},
        {"type": "point", "label": "nose", "coordinates": _at(230, 150)},
        {"type": "ellipse", "label": "animal", "coordinates": {"angle": 20, "center": _at(60, 120), "rx": 30, "ry": 12}},
        {"type": "cube", "label": "car", "coordinates": {**cube, "angle": 0}},
        {"type": "binary", "label": "animal", "coordinates": f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"},
        {"type": "class", "label": "<b>sunny</b>"},
        {"type": "box", "label": "broken", "coordinates": [{"x": "1"}]},
    ]  # fmt: skip
    catalog.ok("POST", f"items/{catalog.items[TAKEN]}/annotations", drawn)
    catalog.ok(
        "POST",
        f"items/{catalog.items['lying.jpg']}/annotations",
        [{"type": "box", "label": "car", "coordinates": [_at(0, 0), _at(40, 40)]}],
    )
    for path in sorted((ROOT / "examples/bucket/labels/train").glob("*.json")):
        told = json.loads(path.read_text())
        catalog.ok(
            "POST",
            f"items/{catalog.items[told['filename'].removeprefix('/')]}/annotations",
            told["annotations"],
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no Chromium is installed: scripts/rigs.sh does"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


class Tab:
    """A tab that nobody signed in yet, and what went wrong in it."""

    def __init__(self, page: Page, catalog: Catalog) -> None:
        self.page = page
        self.catalog = catalog
        self.wrong: list[str] = []
        self.expected = "nothing"
        """A pattern of errors that the test provokes."""
        page.on(
            "console",
            lambda told: self.wrong.append(told.text) if told.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", self._opened)
        page.on("request", lambda sent: self._asked(sent.url))

    def _opened(self, dialog: Dialog) -> None:
        self.wrong.append(f"a script ran: {dialog.message}")
        dialog.dismiss()

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.catalog.url}/", f"blob:{self.catalog.url}/")):
            self.wrong.append(f"asked {url}")
        if "eyJ" in url:
            self.wrong.append(f"a token in {url}")

    def open(self, place: str = "", **session: Any) -> Page:
        """The page, signed in."""
        if session or self.page.url == "about:blank":
            told = json.dumps(json.dumps({**json.loads(self.catalog.session), **session}))
            self.page.goto(f"{self.catalog.url}/#/{place}")
            self.page.evaluate(f"sessionStorage.setItem('session', {told})")
            self.page.reload()
        else:
            self.page.goto(f"{self.catalog.url}/#/{place}")
        return self.page

    def item(self, key: str, query: str = "") -> Page:
        return self.open(f"i/{self.catalog.items[key]}{query}")


@pytest.fixture
def tab(browser: Browser, catalog: Catalog) -> Iterator[Tab]:
    with browser.new_context(viewport={"width": 1200, "height": 800}) as context:
        context.set_default_timeout(10_000)
        made = Tab(context.new_page(), catalog)
        yield made
        assert [told for told in made.wrong if not re.search(made.expected, told)] == []


def session(page: Page) -> Any:
    return page.evaluate("JSON.parse(sessionStorage.getItem('session'))")


# -- signing in and out --------------------------------------------------------------------------


def sign_in(page: Page, password: str = PASSWORD, email: str = EMAIL) -> None:
    page.get_by_label("Email address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_signing_in_and_out(tab: Tab) -> None:
    page, tab.expected = tab.page, "401"
    page.goto(tab.catalog.url)
    sign_in(page, "wrong password")
    expect(page.get_by_role("alert")).to_have_text("Wrong email address or password.")
    expect(page.get_by_label("Password")).to_have_value("")
    sign_in(page)
    row = page.get_by_role("row").filter(has_text="photos")
    expect(row).to_contain_text(str(len(tab.catalog.items)))
    expect(row).to_contain_text("%")
    expect(row).to_contain_text("file://")
    assert session(page)["token"]
    assert page.evaluate("localStorage.length") == 0
    assert page.context.cookies() == []
    page.reload()
    expect(row).to_be_visible()
    row.get_by_role("link").click()
    expect(page.locator(".card").first).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Email address")).to_be_focused()
    assert session(page) is None
    assert "photos" not in page.content()
    page.go_back()
    page.reload()
    expect(page.get_by_label("Password")).to_be_visible()


def test_too_many_attempts_are_said(tab: Tab) -> None:
    page, tab.expected = tab.page, "429"
    told = {"status": 429, "message": "too many wrong passwords"}
    page.route(
        "**/token?default", lambda route: route.fulfill(status=429, json=told, headers={"Retry-After": "150"})
    )
    page.goto(tab.catalog.url)
    sign_in(page)
    expect(page.get_by_role("alert")).to_have_text("Too many wrong passwords. Try again in 3 minutes.")


def test_a_token_is_renewed_before_it_ends(tab: Tab) -> None:
    page = tab.open(until=0)
    expect(page.get_by_role("link", name="photos")).to_be_visible()
    assert session(page)["until"] > time.time() * 1000


def test_a_token_that_ended_is_renewed_and_a_session_that_ended_is_over(tab: Tab) -> None:
    tab.expected = "401"
    page = tab.open(token="eaten")
    expect(page.get_by_role("link", name="photos")).to_be_visible()
    page = tab.open(f"d/{tab.catalog.dataset}", token="eaten", refresh="eaten")
    expect(page.get_by_role("alert")).to_have_text("Your session has ended. Sign in again.")
    assert session(page) is None


def test_who_may_see_nothing_is_told_so(tab: Tab) -> None:
    tab.page.goto(tab.catalog.url)
    sign_in(tab.page, email=OTHER)
    expect(tab.page.get_by_text("There is no dataset that you may see.")).to_be_visible()
    tab.expected = "404"
    tab.page.goto(f"{tab.catalog.url}/#/d/{tab.catalog.dataset}")
    expect(tab.page.get_by_role("alert")).to_contain_text("no project")


# -- a dataset -----------------------------------------------------------------------------------


def test_items_are_shown_page_by_page(tab: Tab) -> None:
    page, all_of_them = (
        tab.open(f"d/{tab.catalog.dataset}?type=image"),
        len(tab.catalog.query(**{"metadata.system.mimetype": "image/*"})),
    )
    expect(page.get_by_role("status")).to_contain_text(
        f"{all_of_them} of {len(tab.catalog.items)} items, 60 shown"
    )
    expect(page.locator(".card img").first).to_be_visible()
    assert page.locator(".card img").count() < 60, "thumbnails are fetched as they come into view"
    page.locator(".card").nth(59).scroll_into_view_if_needed()
    expect(page.locator(".card")).to_have_count(min(120, all_of_them))
    page.keyboard.press("End")
    expect(page.locator(".card")).to_have_count(all_of_them)
    keys = page.locator(".card").evaluate_all("cards => cards.map(one => one.title)")
    assert len(set(keys)) == all_of_them
    expect(page.get_by_role("button", name="More")).to_be_hidden()
    expect(page.locator(".card img").last).to_be_visible()


def test_filters_folders_and_the_list(tab: Tab) -> None:
    page = tab.open(f"d/{tab.catalog.dataset}")
    status, cards = page.get_by_role("status"), page.locator(".card")
    page.get_by_label("Label", exact=True).fill("animal.cat")  # what is typed is looked for by itself
    expect(status).to_contain_text("1 of ")
    expect(cards).to_have_attribute("title", f"/{TAKEN}")
    assert "label=animal.cat" in page.url
    page.reload()
    expect(page.get_by_label("Label", exact=True)).to_have_value("animal.cat")
    page.get_by_label("Label", exact=True).fill("")
    page.get_by_label("Name").fill("frame-00")
    page.keyboard.press("Enter")
    expect(status).to_contain_text("10 of ")
    page.get_by_label("Name").fill("*/street-001.*")
    page.keyboard.press("Enter")
    expect(status).to_contain_text("2 of ")
    page.get_by_label("Name").fill("")
    page.get_by_label("Annotated").select_option("annotated")
    expect(status).to_contain_text("7 of ")
    page.get_by_label("Annotated").select_option("changed since")
    expect(status).to_have_text("1 found")
    expect(cards).to_have_attribute("title", "/photos/train/street-000.jpg")
    expect(cards.locator(".warn")).to_have_text("changed")
    page.get_by_label("Type").fill("video")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No item fits these filters.")).to_be_visible()
    page.get_by_label("Type").fill("")
    page.get_by_label("Annotated").select_option("any")
    page.get_by_label("Folders in /photos").click()
    page.get_by_role("link", name="val", exact=True).last.click()
    expect(status).to_contain_text("4 of ")
    page.get_by_role("link", name="photos", exact=True).click()
    expect(status).to_contain_text("19 of ")
    page.get_by_label("with subfolders").uncheck()
    expect(status).to_contain_text("1 of ")
    page.go_back()
    expect(status).to_contain_text("4 of ")
    page.get_by_role("link", name="train", exact=True).last.click()
    page.get_by_label("Show").select_option("list")
    row = page.get_by_role("row").filter(has_text="street-001.jpg")
    expect(row).to_contain_text("image/jpeg")
    expect(row).to_contain_text("car 2")
    expect(row).to_contain_text("<b>sunny</b>")


def test_names_are_text(tab: Tab) -> None:
    page = tab.open(f"d/{tab.catalog.dataset}?dir=/hostile")
    names = page.locator(".card .name")
    expect(names).to_have_count(len(HOSTILE))
    expect(page.locator(".card img")).to_have_count(len(HOSTILE))
    told = [one.replace("\n", "\\n").replace("\u202e", "\\u202e") for one in HOSTILE]
    assert sorted(names.all_inner_texts()) == sorted(told)
    page.get_by_label("Show").select_option("list")
    expect(page.get_by_role("link", name=f"/hostile/{SCRIPT}")).to_be_visible()
    page.get_by_role("link", name=f"/hostile/{SCRIPT}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(SCRIPT)
    expect(page.locator(".stage img")).to_be_visible()
    assert page.title() == f"{SCRIPT} · syncagent"
    assert page.locator("main script").count() == 0


# -- an item -------------------------------------------------------------------------------------


def test_annotations_are_drawn(tab: Tab) -> None:
    page = tab.item(TAKEN)
    drawn = page.locator(".stage svg > g")
    expect(drawn).to_have_count(6)
    types = drawn.evaluate_all("all => all.map(one => one.getAttribute('data-type'))")
    assert types == ["box", "segment", "polyline", "point", "ellipse", "cube"]
    assert page.locator(".stage svg").get_attribute("viewBox") == "0 0 240 160"
    colour = "one => getComputedStyle(one.lastElementChild).stroke"
    assert [drawn.nth(n).evaluate(colour) for n in (0, 1, 4)] == [
        "rgb(255, 136, 0)",
        "rgb(204, 0, 204)",
        "rgb(0, 204, 68)",
    ]
    assert drawn.nth(0).locator("rect").last.get_attribute("transform") == "rotate(30 50 45)"
    mask = page.locator(".stage canvas")
    expect(mask).to_be_visible()
    line = mask.evaluate("one => [...one.getContext('2d').getImageData(0, 40, 240, 1).data]")
    assert line[190 * 4 : 191 * 4] == [0, 204, 68, 255]
    assert line[10 * 4 : 11 * 4] == [0, 0, 0, 0]
    expect(page.get_by_label("Tags")).to_have_text("<b>sunny</b>")
    labels = page.get_by_role("region", name="Annotations")
    expect(labels.get_by_role("heading")).to_have_text("Annotations (9)")
    expect(labels.get_by_role("listitem").first).to_contain_text("paint red")
    expect(labels.get_by_role("listitem").filter(has_text="broken")).to_contain_text("cannot be drawn")
    expect(page.get_by_text('"camera": "<i>north</i>"')).to_be_visible()
    labels.get_by_role("button").filter(has_text="lane").click()
    expect(page.locator(".stage .dim")).to_have_count(6)
    page.get_by_label("drawn").uncheck()
    expect(page.locator(".stage svg")).to_be_hidden()


def test_the_image_is_upright_under_its_annotations(tab: Tab) -> None:
    page = tab.item("lying.jpg")
    expect(page.locator(".stage svg > g")).to_have_count(1)
    assert page.locator(".stage svg").get_attribute("viewBox") == "0 0 80 120"
    page.get_by_label("drawn").uncheck()
    shot = Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB")
    red, white = (
        shot.getpixel((shot.width * x // 80, shot.height * y // 120)) for x, y in ((20, 20), (60, 100))
    )
    assert isinstance(red, tuple)
    assert red[0] > 200
    assert red[1] < 60
    assert isinstance(white, tuple)
    assert min(white) > 240


def test_arrows_step_through_what_was_filtered(tab: Tab) -> None:
    page = tab.open(f"d/{tab.catalog.dataset}?dir=/photos/train")
    page.locator(".card").nth(1).click()
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("street-001.jpg")
    for key, wanted in (
        ("ArrowRight", "street-002.jpg"),
        ("ArrowLeft", "street-001.jpg"),
        ("ArrowLeft", "street-000.jpg"),
    ):
        expect(page.get_by_role("link", name="Next")).to_have_attribute("href", re.compile("#/i/"))
        expect(page.get_by_role("link", name="Previous")).to_have_attribute("href", re.compile("#/i/"))
        page.keyboard.press(key)
        expect(title).to_have_text(wanted)
    expect(page.get_by_role("link", name="Next")).to_have_attribute("href", re.compile("#/i/"))
    assert page.get_by_text("Previous").get_attribute("href") is None, "the first of the folder"
    page.go_back()
    expect(page.locator(".card")).to_have_count(14)
    page.locator(".card").last.click()
    expect(title).to_have_text("street-013.jpg")
    page.keyboard.press("Escape")
    expect(page.locator(".card").last).to_be_focused()


def test_video_audio_and_text(tab: Tab) -> None:
    page = tab.item("text/consent.txt")
    expect(page.get_by_label("Text")).to_have_text("<b>bold</b>\twith a \\u202e turn", use_inner_text=True)
    tab.item("video/crossing.mp4")
    expect(page.locator(".stage video")).to_be_visible()
    tab.item("audio/chime.wav")
    expect(page.locator(".media audio")).to_be_visible()


def test_what_is_too_large_or_elsewhere_is_not_loaded(tab: Tab) -> None:
    page, asked = tab.page, []

    def large(route: Route) -> None:
        told = route.fetch().json()
        told["metadata"]["system"]["size"] = 65 << 20
        route.fulfill(json=told)

    video, image = tab.catalog.items["video/crossing.mp4"], tab.catalog.items[TAKEN]
    page.route(f"**/items/{video}", large)
    page.on("request", lambda sent: asked.append(sent.url))
    tab.open(f"i/{video}")
    expect(page.get_by_text("65 MB is more than the page loads (64 MB).")).to_be_visible()
    assert not [url for url in asked if "/stream" in url]
    elsewhere = {"Location": "http://elsewhere.example/signed"}
    page.route("**/stream", lambda route: route.fulfill(status=307, headers=elsewhere))
    tab.open(f"i/{image}")
    expect(page.get_by_text("by signed URL")).to_be_visible()
    expect(page.locator(".media img")).to_be_visible()


# -- how a dataset stands, and the page itself ---------------------------------------------------


def test_runs_quarantine_and_trash(tab: Tab) -> None:
    page = tab.open(f"d/{tab.catalog.dataset}/sync")
    expect(page.locator(".figures")).to_contain_text("1in quarantine")
    expect(page.locator(".figures")).to_contain_text("1in the trash")
    cells = page.get_by_role("row").nth(2).get_by_role("cell").all_inner_texts()
    assert cells[:2] == ["2", "done"]
    assert cells[5:] == ["0", "1", "1", "1", "0"]
    expect(page.get_by_text("bad\\nkey")).to_be_visible()
    expect(page.get_by_text("photos/val/street-004.jpg")).to_be_visible()


def test_a_running_command_is_followed_until_it_ends(tab: Tab) -> None:
    page = tab.page
    command = {
        "type": "SyncDataset",
        "status": "in-progress",
        "progress": 40,
        "createdAt": "2026-01-01T00:00:00Z",
    }
    told = [
        {**command, "spec": {"datasetId": tab.catalog.dataset}},
        {**command, "spec": {"datasetId": "another"}},
    ]
    page.route("**/api/v1/commands", lambda route: route.fulfill(json=told))
    page.clock.install()
    tab.open(f"d/{tab.catalog.dataset}/sync")
    running = page.get_by_role("status").filter(has_text="SyncDataset in-progress, 40 %")
    expect(running).to_have_count(1)
    told.clear()
    page.clock.run_for(3500)
    expect(page.locator(".figures")).to_be_visible()
    expect(running).to_have_count(0)


def test_it_fits_a_phone_in_light_and_dark(tab: Tab) -> None:
    dataset = tab.catalog.dataset
    tab.page.set_viewport_size({"width": 360, "height": 740})
    for place, part in (("", "table"), (f"d/{dataset}", ".card"), (f"d/{dataset}?view=list", "td .chip"),
                        (f"d/{dataset}/sync", ".figures"), (f"i/{tab.catalog.items[TAKEN]}", ".stage svg g")):  # fmt: skip
        page = tab.open(place)
        expect(page.locator(part).first).to_be_attached()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, place
    seen = set()
    for scheme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=scheme)
        seen.add(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2


def test_the_files_have_strict_headers_and_are_kept(catalog: Catalog) -> None:
    with httpx.Client(base_url=catalog.url) as anybody:
        for path, (_, kind) in FILES.items():
            answer = anybody.get(path)
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
            policy = dict(one.split(" ", 1) for one in answer.headers["Content-Security-Policy"].split("; "))
            assert (
                policy["default-src"]
                == policy["frame-ancestors"]
                == policy["base-uri"]
                == policy["form-action"]
                == "'none'"
            )
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["img-src"] == policy["media-src"] == "'self' blob:"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            again = anybody.get(path, headers={"If-None-Match": f'"other", W/{answer.headers["ETag"]}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["Content-Security-Policy"]
            assert anybody.head(path).headers["Content-Length"] == str(len(answer.content))
        assert anybody.get("/page/other.js").status_code == 404
        assert anybody.get("/page/..%2Fpage.py").status_code == 404
