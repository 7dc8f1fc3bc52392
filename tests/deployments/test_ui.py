"""What a campaign leaves in Prefect's interface, looked at in a real browser.

Starts a Prefect server and runs small campaigns and a study, for some minutes. With CEREALS_UI_SHOTS=FOLDER it also
runs `deployments/recipes/streets.toml`, with a budget, and writes the pictures of the documentation to FOLDER:

    CEREALS_UI_SHOTS=docs/ui pytest -m system -o faulthandler_timeout=0 tests/deployments/test_ui.py
"""

import io
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from ui_server import ROOT, Prefect

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the package playwright is missing: pip install playwright"
)
BROWSER = shutil.which("chromium") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not BROWSER, reason="the browser is missing: apt-get install chromium"),
]
SHOTS = os.environ.get("CEREALS_UI_SHOTS")
STAGES = ["train-seg", "evaluate", "train-cost", "info-map", "cost-map", "region-fusion", "nms", "oracle-query"]
STAGES += ["evaluate-cost", "report"]
PARTS = """
[data]
format = "synthetic"
pool_images = 10
eval_images = 3
height = 60
width = 100
[model]
width = 0.03
[training]
learning_rate = 1e-3
max_steps = {steps}
[stop]
rounds = {rounds}
clicks = 5_000
[compute]
threads = 1
shard_images = 4
[acquisition]
seed_images = 2
images_per_round = 1
window_px = 24
"""
CAMPAIGN = f'name = "small"{PARTS.format(steps=60, rounds=2)}strategy = "cereals-entropy"\n'
EMBEDDED = f'name = "embedded"{PARTS.format(steps=4, rounds=0)}'
ARMS = '[study]\nstrategies = ["random-regions"]\nseeds = [1]\nrepeat = false\n'
STUDY = f'name = "tiny"{PARTS.format(steps=12, rounds=1)}{ARMS}'
WIDE_TABLES = """[...document.querySelectorAll('.markdown-renderer__table')].filter(
    each => each.scrollWidth > each.clientWidth).map(each => each.innerText)"""
"""Tables that the page shows in part, unless they are scrolled."""
EAGER = (
    "from tasks.telling import run_progress as run; "
    "run.ARTIFACT_AFTER_S = run.ARTIFACT_EVERY_S = run.LOG_EVERY_S = 0.02; "
)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server on which a campaign and a study ran, and where a campaign on the embedded server had left its page."""
    prefect = Prefect(tmp_path_factory.mktemp("prefect"))
    prefect.cereals("run", EMBEDDED, embedded=True)
    server = prefect.serve()
    try:
        if SHOTS:
            streets = (ROOT / "deployments/recipes/streets.toml").read_text()
            prefect.cereals("run", f"{streets}clicks = 20_000\n[compute]\nthreads = 1\n")
        prefect.cereals("run", CAMPAIGN, before=EAGER)
        prefect.cereals("study", STUDY)
        yield prefect
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(prefect: Prefect, browser: Any) -> Iterator[Any]:
    """An empty page, 1280 px wide. Requests to other hosts are blocked, and nothing may break within the page."""
    window = browser.new_context(viewport={"width": 1280, "height": 1000}, base_url=prefect.url)
    window.set_default_timeout(60_000)
    blocked: set[str] = set()
    broken: list[str] = []
    window.on("weberror", lambda error: broken.append(str(error.error)))

    def only_here(route: Any) -> None:
        if route.request.url.startswith((prefect.url, "data:", "blob:")):
            route.continue_()
        else:
            blocked.add(route.request.url)
            route.abort()

    window.route("**/*", only_here)
    yield window.new_page()
    window.close()
    print(f"requests to other hosts, blocked: {sorted(blocked) or 'none'}")
    assert not broken


def open_run(page: Any, name: str) -> list[dict[str, Any]]:
    """Open the page of a flow run by way of the list of runs; returns the nodes that its graph was told to show."""
    page.goto("/runs")
    with page.expect_response(re.compile(r"/graph-v2")) as told:
        page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_text(re.compile("^Beginning")).wait_for()
    return [node for _, node in told.value.json()["nodes"]]


def open_newest(page: Any, key: str) -> None:
    """Open the newest page under a key by way of the list of artifacts."""
    page.goto("/artifacts")
    page.get_by_text(key, exact=True).first.click()
    page.wait_for_url("**/artifacts/key/*")
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.locator("h1").first.wait_for()


def follow(page: Any, name: str) -> Any:
    """Follow a link within an artifact's text, which opens a page of its own; returns that."""
    with page.expect_popup() as opened:
        page.get_by_role("link", name=name, exact=True).click()
    return opened.value


def tab(page: Any, name: str) -> str:
    """Open a tab of a run's page; returns its text."""
    page.locator("li.p-tab", has_text=name).click()
    content = page.locator(f"#{name.lower().replace(' ', '-')}-content")
    content.locator("a").first.wait_for()
    return str(content.inner_text())


def shoot(page: Any, name: str, height: int) -> None:
    """Write a picture of what the window shows, with few colours, if pictures are wanted."""
    if SHOTS:
        page.set_viewport_size({"width": 1280, "height": height})
        page.wait_for_timeout(4_000)
        folder = ROOT / SHOTS
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256, kmeans=1)
        picture.save(folder / f"{name}.png", optimize=True)
        assert (folder / f"{name}.png").stat().st_size < 250_000


def test_the_list_of_artifacts_shows_one_a_campaign_and_one_a_study(page: Any) -> None:
    keys = {"embedded-round", "small-round", "tiny-study"} | ({"streets-round"} if SHOTS else set())
    page.goto("/artifacts")
    page.get_by_text(f"{len(keys)} Artifacts", exact=True).wait_for()
    page.get_by_text("tiny: 1 of 1 campaigns have ended", exact=True).wait_for()
    page.get_by_text(re.compile(r"^small, round 2 of 2: mIoU 0\.\d+, [\d,.]+ clicks so far$")).wait_for()
    lines = page.inner_text("body").splitlines()
    assert {line for line in lines if re.fullmatch(r"[a-z0-9]+-[a-z0-9-]+", line)} == keys


def test_a_campaigns_page_shows_its_rounds(page: Any) -> None:
    nodes = open_run(page, "small")
    assert [node["label"] for node in nodes if node["kind"] == "flow-run"] == [
        f"round / small round {n}" for n in range(3)
    ]
    assert [node["label"] for node in nodes if node["kind"] == "task-run"] == [
        "small start pool",
        "small start seed-set",
    ]
    assert colours_of(page.locator("canvas").first) > 20
    log = page.inner_text("body")
    for number in range(3):
        assert f"small round {number}: Trained on " in log
    assert "small start pool: done in " in log
    tab(page, "Subflow Runs")
    assert re.findall("small round [0-9]", page.inner_text("[role=tabpanel]")) == [
        f"small round {n}" for n in (2, 1, 0)
    ]


def test_a_rounds_page_shows_its_stages(page: Any) -> None:
    nodes = open_run(page, "small round 1")
    assert {node["label"] for node in nodes} == {f"small round 1 {stage}" for stage in STAGES}
    left = {node["label"].split()[-1]: [each["type"] for each in node["artifacts"]] for node in nodes}
    assert left["report"] == ["markdown"]
    assert left["train-seg"] == ["progress"]
    assert all(set(kinds) <= {"progress"} for stage, kinds in left.items() if stage != "report")
    log = page.inner_text("body")
    assert re.search(r"small round 1 train-seg: \d+ of (at most )?\d+ steps, .* epoch \d+, loss", log)
    assert re.search(
        r"small round 1 train-seg: done in .*; \d+ images, \d+ epochs, \d+ steps, loss .* peak memory", log
    )
    assert set(re.findall("small round 1 [a-z-]+", tab(page, "Task Runs"))) == {
        f"small round 1 {stage}" for stage in STAGES
    }


def test_a_rounds_artifact_tells_what_happened(page: Any) -> None:
    open_newest(page, "small-round")
    page = follow(page, "Round 1")
    page.get_by_role("heading", name="small, round 1 of 2").wait_for()
    headings = page.locator("h2").all_inner_texts()
    assert headings[: len(HEADINGS)] == HEADINGS
    text = page.inner_text("body")
    assert re.search(r"Trained on [\d,.]+ clicks .* the model reaches mIoU 0\.\d+", text)
    assert re.search(r"It asked for \d+ regions on \d+ images, which cost [\d,.]+ clicks", text)
    assert "On track: all rounds of queries are done" in text
    for stage in STAGES[:-1]:
        assert page.get_by_role("cell", name=stage, exact=True).count() == 1
    widths = widths_of_pictures(page)
    assert len(widths) == 7  # curve, four regions, cost, calibration
    assert min(widths) > 300
    assert page.evaluate(WIDE_TABLES) == []


HEADINGS = ["Where the campaign stands", "What it asked for", "Clicks of this round"]
HEADINGS += ["Predicted cost against baselines", "Stages", "IoU of each class", "Words of this page"]


def test_links_of_an_artifact_open_their_pages(page: Any) -> None:
    open_newest(page, "small-round")
    page = follow(page, "All rounds")
    page.get_by_text("small round 0 report", exact=True).wait_for()
    assert page.url.endswith("/artifacts/key/small-round")
    versions = page.locator("a[href*='/artifacts/artifact/']")
    assert versions.count() == 3
    versions.last.click()
    page.get_by_role("heading", name="small, round 0 of 2").wait_for()
    assert page.locator("a", has_text=re.compile("^Round ")).count() == 0
    run = follow(page, "Flow run")
    run.get_by_text("small round 0 train-seg").first.wait_for()
    assert "/runs/flow-run/" in run.url


def test_the_link_of_a_run_on_the_embedded_server_is_alive(page: Any) -> None:
    open_newest(page, "embedded-round")
    run = follow(page, "Flow run")
    run.get_by_text("embedded round 0 train-seg").first.wait_for()
    assert "/runs/flow-run/" in run.url


def test_a_study_leaves_one_page(page: Any) -> None:
    open_newest(page, "tiny-study")
    assert page.get_by_role("cell", name="random-regions", exact=True).count() == 2  # of both tables
    assert len(widths_of_pictures(page)) == 1
    assert page.evaluate(WIDE_TABLES) == []
    page.goto("/artifacts/key/tiny-study")
    page.get_by_text("Created tiny-study").wait_for()
    assert page.locator("a[href*='/artifacts/artifact/']").count() == 1


@pytest.mark.skipif(not SHOTS, reason="no pictures are wanted: CEREALS_UI_SHOTS names no folder")
def test_pictures_for_the_documentation(page: Any) -> None:
    open_run(page, "streets")
    shoot(page, "campaign", 1_350)
    open_run(page, "streets round 2")
    shoot(page, "round", 1_100)
    open_newest(page, "streets-round")
    page = follow(page, "Round 2")
    page.get_by_role("heading", name="streets, round 2 of 3").wait_for()
    shoot(page, "page", 1_700)
    page.set_viewport_size({"width": 1280, "height": 1_200})
    page.get_by_role("heading", name="Stages").evaluate("each => each.scrollIntoView()")
    shoot(page, "stages", 1_200)


def widths_of_pictures(page: Any) -> list[int]:
    """Widths in px of the pictures within an artifact, as the browser has decoded them; an error if it cannot."""
    decoded = "all => Promise.all(all.map(each => each.decode().then(() => each.naturalWidth)))"
    return list(page.locator("img[src^='data:image/png']").evaluate_all(decoded))


def colours_of(place: Any) -> int:
    """How many colours a part of the page shows, once it shows more than a few."""
    for _ in range(40):
        shown = Image.open(io.BytesIO(place.screenshot())).convert("RGB").getcolors(1 << 24)
        if len(shown) > 20:
            break
        place.page.wait_for_timeout(500)
    return len(shown)
