"""The page in a real browser, headless Chromium: no error, the chart is drawn, and wheel, keys and pointer work."""

import html
import json
import re
import struct
import zlib
from pathlib import Path

import pytest
from tests.browser import needs_chromium, open_page
from tests.compiler.present.plans import made_plan, made_verdicts

from trainwright.compiler.page.write import render

pytestmark = [pytest.mark.slow, needs_chromium]
PAPER = {"light": (255, 255, 255), "dark": (21, 24, 28)}
# What a test does to the page, after it is drawn, as its reader would.
ACTS = """<script>
const gantt = document.querySelector("figure.gantt"), lanes = gantt.querySelector("svg");
const key = (name, shiftKey = false) => lanes.dispatchEvent(
  new KeyboardEvent("keydown", { key: name, shiftKey, bubbles: true, cancelable: true }));
const result = {};
addEventListener("load", () => {
  %s
  const output = document.body.appendChild(document.createElement("pre"));
  output.id = "result"; output.textContent = JSON.stringify(result);
});
</script></body>"""


class Browser:
    """The page of the made-up plan, and what a reader does to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = folder / "plan.html"
        plan = made_plan()
        self.text = render(plan, made_verdicts(plan))
        self.page.write_text(self.text, encoding="utf-8")

    def dom(self, fragment: str = "", **size: int) -> str:
        return open_page(self.page, "--dump-dom", fragment=fragment, **size)

    def after(self, act: str, fragment: str = "") -> dict[str, object]:
        """What `act` put into `result`."""
        self.page.write_text(self.text.replace("</body>", ACTS % act), encoding="utf-8")
        found = re.search(r'<pre id="result">(.*?)</pre>', self.dom(fragment), re.DOTALL)
        assert found
        result: dict[str, object] = json.loads(html.unescape(found[1]))
        return result

    def picture(self, fragment: str, width: int, height: int, *options: str) -> "Picture":
        file = self.folder / "shot.png"
        open_page(self.page, f"--screenshot={file}", *options, fragment=fragment, width=width, height=height)
        return Picture(file.read_bytes())


class Picture:
    """The pixels of a PNG with 8 bits a channel, not interlaced, as Chromium writes them."""

    def __init__(self, data: bytes) -> None:
        self.width, self.height, depth, kind = struct.unpack(">IIBB", data[16:26])
        assert depth == 8
        channels = {2: 3, 6: 4}[kind]
        packed, at = b"", 8
        while at < len(data):
            (size,) = struct.unpack(">I", data[at : at + 4])
            if data[at + 4 : at + 8] == b"IDAT":
                packed += data[at + 8 : at + 8 + size]
            at += 12 + size
        self.rows = self._rows(zlib.decompress(packed), channels)
        self.channels = channels

    def _rows(self, raw: bytes, channels: int) -> list[bytearray]:
        """Undoes the filters of each row (PNG specification, section 9)."""
        size, rows = self.width * channels, []
        before = bytearray(size)
        for start in range(0, len(raw), size + 1):
            kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + size])
            for at in range(size):
                left = row[at - channels] if at >= channels else 0
                up, corner = before[at], before[at - channels] if at >= channels else 0
                if kind == 4:
                    guess = left + up - corner
                    near = sorted((left, up, corner), key=lambda each: abs(guess - each))[0]
                    row[at] = (row[at] + near) & 255
                elif kind:
                    row[at] = (row[at] + {1: left, 2: up, 3: (left + up) // 2}[kind]) & 255
            rows.append(row)
            before = row
        return rows

    def colors(self) -> set[tuple[int, ...]]:
        return {tuple(row[at : at + 3]) for row in self.rows for at in range(0, len(row), self.channels)}

    def at(self, x: int, y: int) -> tuple[int, ...]:
        return tuple(self.rows[y][x * self.channels : x * self.channels + 3])


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path)


def attribute(dom: str, name: str) -> str:
    found = re.search(rf'<svg class="lanes[^>]*? {name}="([^"]*)"', dom)
    assert found, dom[:500]
    return found[1]


def test_the_chart_is_drawn_with_all_its_tasks(browser: Browser) -> None:
    dom = browser.dom()
    assert attribute(dom, "data-visible") == "256"
    assert attribute(dom, "data-zoom") == "1.00"
    for css in ("f0", "f1", "b0", "b1"):
        (path,) = re.findall(rf'<path class="{css}" d="([^"]*)"', dom)
        assert path.count("M") == 64  # 4 ranks, 16 micro-batches
    assert len(re.findall(r'<button[^>]*aria-selected="true"', dom)) == 1


def test_a_link_opens_its_view(browser: Browser) -> None:
    dom = browser.dom("#stage=4k&zoom=8&at=0.5")
    assert attribute(dom, "data-zoom") == "8.00"
    assert 8 < int(attribute(dom, "data-visible")) < 128
    assert re.search(r'<text[^>]*class="batch[^>]*>[FB]\d+\.[01]<', dom)  # there is room for names
    other = browser.dom("#stage=32k")
    assert re.search(r'id="phase-0"[^>]*hidden', other)
    assert not re.search(r'id="phase-1"[^>]*hidden', other)


def test_wheel_keys_and_dragging_move_the_view(browser: Browser) -> None:
    result = browser.after("""
      const box = lanes.getBoundingClientRect();
      const at = { clientX: box.left + 600, clientY: box.top + 10, bubbles: true, cancelable: true };
      lanes.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: -300 }));
      result.wheel = Number(lanes.dataset.zoom);
      result.hash = location.hash;
      key("+"); result.plus = Number(lanes.dataset.zoom);
      const before = lanes.innerHTML;
      key("ArrowRight", true); result.moved = lanes.innerHTML !== before;
      key("0"); result.whole = Number(lanes.dataset.zoom);
      result.free = lanes.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: 300 }));
      gantt.querySelector("[data-do=in]").click(); result.button = Number(lanes.dataset.zoom);
    """)
    assert result["wheel"] == pytest.approx(2.72, abs=0.01)
    assert "zoom=2.718" in str(result["hash"])
    assert result["plus"] == pytest.approx(4.08, abs=0.01)
    assert result["moved"]
    assert result["whole"] == 1
    assert result["free"]  # where there is nothing to zoom out of, the page scrolls
    assert result["button"] == 2


def test_arrow_keys_go_from_task_to_task(browser: Browser) -> None:
    result = browser.after("""
      const told = () => gantt.querySelector(".told").textContent;
      key("ArrowRight"); result.first = told();
      key("ArrowRight"); result.second = told();
      key("ArrowDown"); result.below = told();
      const boxes = (path) => path.getAttribute("d").split("M").length - 1;
      result.same = [...lanes.querySelectorAll(".same, .chosen")].map(boxes);
      key("Escape"); result.none = told();
    """)
    assert str(result["first"]).startswith("pp 0: forward of micro-batch 0 in chunk 0, 0 µs to 24 ms")
    assert str(result["second"]).startswith("pp 0: forward of micro-batch 1")
    assert str(result["below"]).startswith("pp 1: forward of micro-batch")
    assert result["same"] == [15, 1]  # one micro-batch on four ranks: two chunks, forward and backward
    assert result["none"] == ""


def test_a_rank_shows_whom_it_works_with(browser: Browser) -> None:
    result = browser.after("""
      const figure = document.querySelector("figure.places");
      const cell = figure.querySelector('[data-rank="16"]');
      cell.focus();
      result.told = figure.querySelector(".told").textContent;
      result.with = [...figure.querySelectorAll(".with")].map((each) => each.dataset.with + each.dataset.rank).sort();
      cell.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
      result.next = document.activeElement.dataset.rank;
    """)
    assert str(result["told"]).startswith(
        "rank 16 on node 2, device 0: tensor 0 of 2 (T: 16, 17, inside the node); data 0 of 8 (D: 16, 18, 20, 22, 24,"
    )
    assert result["with"] == ["D18", "D20", "D22", "P0", "P32", "P48", "T17"]
    assert result["next"] == "17"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_both_themes_are_drawn_at_both_widths(theme: str, width: int, browser: Browser) -> None:
    picture = browser.picture(f"#theme={theme}&stage=4k", width, 600)
    assert (picture.width, picture.at(width - 2, 300)) == (width, PAPER[theme])
    assert len(picture.colors()) > 50


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_never_wider_than_the_window(width: int, tmp_path: Path) -> None:
    frame = Browser(tmp_path)
    plan = tmp_path / "framed.html"
    plan.write_text(frame.text, encoding="utf-8")
    frame.page.write_text(
        f"""<body><iframe id="f" src="framed.html" style="width:{width}px;height:3000px;border:0"></iframe>
        <pre id="result"></pre><script>f.onload = () => {{ const d = f.contentDocument.documentElement;
        result.textContent = d.scrollWidth + " " + d.clientWidth; }}</script></body>""",
        encoding="utf-8",
    )
    found = re.search(
        r'<pre id="result">(\d+) (\d+)', open_page(frame.page, "--dump-dom", "--allow-file-access-from-files")
    )
    assert found
    assert found[1] == found[2] == str(width)


@pytest.mark.parametrize(("scheme", "theme"), [("0", "dark"), ("1", "light")])
def test_without_a_choice_the_system_s_theme_is_followed(scheme: str, theme: str, browser: Browser) -> None:
    picture = browser.picture("", 800, 400, f"--blink-settings=preferredColorScheme={scheme}")
    assert picture.at(798, 300) == PAPER[theme]
