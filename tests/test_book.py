"""The built book: its pages, marks, links, pictures and manners."""

import functools
import re
from copy import copy
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from built_book import CHAPTERS, PAGES, built_book
from course_pages import Runtimes, Sample
from ladder_picture import TARGET, ladder_svg
from minigpt.runs import load_record
from nbdev_directives import split_directives
from project import NOTEBOOKS, ROOT, SETTINGS, cells

pytestmark = pytest.mark.xdist_group("book")  # one build for all tests
each_page = pytest.mark.parametrize("page", PAGES)
each_chapter = pytest.mark.parametrize("page", CHAPTERS)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return built_book(tmp_path_factory)


@functools.cache
def parse(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def article(site, page):
    """The part of a page that its author wrote."""
    return parse(site / f"{page}.html").select_one("article.bd-article")


def test_every_chapter_is_in_the_book():
    written = [f"nbs/{path.stem}" for path in NOTEBOOKS]
    missing = [page for page in CHAPTERS if page not in written]
    assert not missing
    assert CHAPTERS == written[: len(CHAPTERS)]


@each_page
def test_page_is_built(site, page):
    assert article(site, page).find("h1")


@each_chapter
def test_directives_are_not_shown(site, page):
    text = article(site, page).get_text()
    assert not re.search(r"^#\s*\|", text, re.M)
    assert "NBVAL_" not in text
    assert "google.colab" not in text


@each_page
def test_tables_are_tables(site, page):
    body = copy(article(site, page))
    for shown in body.select("pre"):  # what a program reads or printed
        shown.decompose()
    for line in body.get_text().splitlines():
        assert not re.match(r"\s*\|[\s:|-]*-[\s:|-]*\|", line), line


@each_chapter
def test_each_chapter_that_is_named_can_be_reached(site, page):
    body = copy(article(site, page))
    linked = {
        int(number)
        for link in body.find_all("a", href=True)
        for number in re.findall(r"^(\d\d)_\w+\.html", link["href"])
    }
    for code in body.select("pre"):
        code.decompose()
    named = re.findall(r"[Cc]hapter (\d+)", body.get_text())
    own = int(page.removeprefix("nbs/")[:2])
    assert {int(number) for number in named} - linked <= {own}


@each_page
def test_formulas_have_single_backslashes(site, page):
    """Two of them, outside of a table, break the line and end the macro."""
    for formula in article(site, page).select(".math"):
        text = formula.get_text()
        assert not re.search(r"\\\\[a-zA-Z,;!]", text), text


@each_chapter
def test_exported_cells_carry_their_module(site, page):
    module, exported = None, 0
    for cell in cells(ROOT / f"{page}.ipynb", "code"):
        found, _ = split_directives(cell["source"])
        module = found.get("default_exp", module)
        exported += "export" in found and "hide" not in found
    marked = article(site, page).select("div.cell.tag_exported")
    assert len(marked) == exported > 0
    assert {cell["data-module"] for cell in marked} == {f"minigpt.{module}"}
    plain = article(site, page).select("div.cell:not(.tag_exported)")
    assert not any(cell.has_attr("data-module") for cell in plain)


@each_chapter
def test_folded_cells_say_what_they_hold(site, page):
    rows = article(site, page).select("details.hide > summary")
    assert not any(row.has_attr("aria-label") for row in rows)
    said = [row.find("p", class_="collapsed").get_text() for row in rows]
    for cell in cells(ROOT / f"{page}.ipynb", "code"):
        found, source = split_directives(cell["source"])
        names = re.findall(r"^(?:def|class) (\w+)", source, re.M)
        if names and "fold" in found and "export" in found:
            assert "Show the code: " + ", ".join(names) in said


@each_chapter
def test_sentences_wrap_on_a_phone_and_columns_do_not(site, page):
    outputs = article(site, page).select(".output.stream")
    for output in outputs:
        text = output.get_text()
        if text.startswith("\N{BALLOT X}") and "  " not in text:
            assert "prose" in output["class"], text
        if re.search(r"\w   +\d", text):
            assert "prose" not in output["class"], text
    assert outputs


@each_page
def test_pictures_have_words(site, page):
    for image in article(site, page).find_all("img"):
        assert len(image.get("alt", "").strip()) > 10, image["src"]
    for drawing in article(site, page).select("svg.ladder"):
        assert drawing.find("title").get_text(strip=True)


@each_page
def test_addresses_follow_settings(site, page):
    git_url, branch = SETTINGS["git_url"], SETTINGS["branch"]
    slug = f"{SETTINGS['user']}/{SETTINGS['repo']}"
    home = SETTINGS["doc_host"] + SETTINGS["doc_baseurl"]
    soup = parse(site / f"{page}.html")
    assert soup.find("link", rel="canonical")["href"] == f"{home}/{page}.html"
    links = {link["href"] for link in soup.find_all("a", href=True)}
    suffix = "ipynb" if page in CHAPTERS else "md"
    assert f"{git_url}/edit/{branch}/{page}.{suffix}" in links
    assert git_url in links
    colab = {link for link in links if "colab.research.google.com" in link}
    for link in colab:
        assert re.fullmatch(
            rf"https://colab\.research\.google\.com/github/{slug}/blob/"
            rf"{branch}/nbs/\w+\.ipynb",
            link,
        )
    if page in CHAPTERS:
        assert [link.rsplit("/", 1)[1] for link in colab] == [
            f"{page.removeprefix('nbs/')}.ipynb"
        ]
        first = article(site, page).find("h1").find_next_sibling()
        assert first["class"] == ["chapter-links"]
    ours = [
        link
        for link in links
        if "github.com" in link
        and ("minigpt" in link or SETTINGS["user"] in link)
    ]
    assert all(link.startswith(git_url) for link in ours)
    assert "{{" not in article(site, page).get_text()


@each_chapter
def test_download_is_the_notebook(site, page):
    link = article(site, page).select_one(".chapter-links a[download]")
    target = (site / f"{page}.html").parent / link["href"]
    assert target.read_bytes() == (ROOT / f"{page}.ipynb").read_bytes()


def test_addresses_are_said_once():
    """Only settings.ini names the address; the rest is derived from it."""
    for path in ["_config.yml", *(ROOT / "book").glob("**/*.*")]:
        path = ROOT / path
        if path.suffix in (".yml", ".md", ".py", ".css"):
            text = path.read_text(encoding="utf-8")
            assert f"{SETTINGS['user']}/{SETTINGS['repo']}" not in text, path
            assert SETTINGS["doc_host"] not in text, path


@each_page
def test_links_lead_somewhere(site, page):
    path = site / f"{page}.html"
    for link in parse(path).find_all("a", href=True):
        url = urlsplit(link["href"])
        if url.scheme or url.netloc:
            assert url.scheme in ("https", "mailto"), link["href"]
            continue
        target = (
            (path.parent / unquote(url.path)).resolve() if url.path else path
        )
        assert target.is_file(), link["href"]
        if url.fragment and target.suffix == ".html":
            assert parse(target).find(id=unquote(url.fragment)), link["href"]


@each_page
def test_page_loads_nothing_from_elsewhere(site, page):
    path = site / f"{page}.html"
    soup = parse(path)
    loaded = [tag["src"] for tag in soup.find_all(src=True)]
    loaded += [
        tag["href"]
        for tag in soup.find_all("link", href=True)
        if not {"canonical", "prev", "next", "author", "index", "search"}
        & set(tag["rel"])
    ]
    assert loaded
    for address in loaded:
        url = urlsplit(address)
        assert not url.netloc, address
        assert url.scheme in ("", "data"), address
        if not url.scheme:
            assert (path.parent / unquote(url.path)).is_file(), address


def test_style_sheets_load_nothing_from_elsewhere(site):
    sheets = list((site / "_static").glob("*.css"))
    assert sheets
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        for target in re.findall(r"url\(\s*[\"']?([^\"')]+)", text):
            assert not re.match(r"(https?:)?//", target), (
                f"{sheet.name}: {target}"
            )
    course = (site / "_static/course.css").read_text(encoding="utf-8")
    for target in re.findall(r"url\(\"([^\"]+)\"\)", course):
        assert (site / "_static" / target).is_file(), target


def test_glossary_is_large_and_names_chapters(site):
    terms = article(site, "book/glossary").select("dl.glossary > dt")
    assert len(terms) >= 40
    for term in terms:
        meaning = term.find_next_sibling("dd")
        assert re.search(r"Chapter \d", meaning.get_text()), term.get_text()
        assert meaning.find("a", href=re.compile(r"\.\./nbs/\d\d_"))


def test_cited_and_listed_are_the_same(site):
    text = (ROOT / "book/references.md").read_text(encoding="utf-8")
    cited = set(re.findall(r"\{cite:t\}`(\w+)`", text))
    bib = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    listed = re.findall(r"^@\w+\{(\w+),", bib, re.M)
    assert len(listed) == len(set(listed))
    assert cited == set(listed)


def test_intro_shows_what_was_recorded(site):
    text = article(site, "book/intro").get_text()
    for name in ("ladder", "mini"):
        path = ROOT / "book/runs" / f"{name}.jsonl"
        if not path.is_file():
            continue
        header, rows = load_record(name)
        if header.get("provisional"):
            continue
        if name == "ladder":
            assert all(f"{row['loss']:.2f}" in text for row in rows)
        else:
            sample = [row for row in rows if row["kind"] == "sample"][-1]
            assert sample["text"].strip().splitlines()[0] in text


@each_chapter
def test_a_chapter_takes_as_long_as_it_says(site, page):
    number = int(page.removeprefix("nbs/")[:2])
    (measured,) = [
        row["seconds"]
        for row in load_record("runtimes")[1]
        if row["chapter"].startswith(f"{number} ")
    ]
    (said,) = [
        cells[1].get_text()
        for cells in (r.select("td") for r in article(site, page).select("tr"))
        if cells and "the whole chapter" in cells[0].get_text()
    ]
    (said,) = re.findall(r"about (\d+) s", said)
    assert abs(int(said) - measured) <= 5


def test_no_chapter_takes_longer_than_the_intro_says():
    text = (ROOT / "book/intro.md").read_text(encoding="utf-8")
    assert "in about a minute or less" in text
    _, rows = load_record("runtimes")
    assert max(row["seconds"] for row in rows) < 75


def test_ladder_picture_is_current():
    want = ladder_svg(load_record("ladder")[1], alone=True)
    assert TARGET.read_text(encoding="utf-8") == want, (
        "run python book/_ext/ladder_picture.py"
    )


def test_ladder_picture_draws_lengths():
    rows = [
        {"chapter": 1, "name": "a < b", "loss": 4.0},
        {"chapter": 2, "name": "c", "loss": 1.0},
    ]
    drawing = BeautifulSoup(ladder_svg(rows), "html.parser")
    first, second = [float(bar["width"]) for bar in drawing.select("rect.bar")]
    assert first == pytest.approx(4 * second, rel=0.01)
    assert [bar["width"] for bar in drawing.select("g.best rect")] == [
        drawing.select("rect.bar")[1]["width"]
    ]
    assert "a < b 4.00" in drawing.find("title").get_text()


HEADER = {"command": "run <it>", "device": "CPU", "date": "2026-01-02"}


def test_sample_is_shortened_and_escaped():
    rows = [
        {"kind": "val", "loss": 2.0},
        {"kind": "val", "loss": 1.5},
        {"kind": "sample", "text": "old"},
        {"kind": "sample", "text": "\na <b>\nc\nd"},
    ]
    options = SimpleNamespace(options={"lines": 2})
    shown = Sample.show(options, {**HEADER, "params": 1234}, rows)
    soup = BeautifulSoup(shown, "html.parser")
    assert soup.blockquote.get_text() == "a <b>\nc"
    assert [line["style"] for line in soup.select("blockquote > span")] == [
        "--line: 0",
        "--line: 1",
    ]
    words = soup.figcaption.get_text()
    assert words == (
        "A recorded run of 1,234 parameters, validation loss 1.50: "
        "run <it>, CPU, 2026-01-02."
    )


def test_runtimes_say_what_is_not_measured():
    rows = [
        {"chapter": "1 One", "device": "CPU", "seconds": 7.4},
        {"chapter": "1 One", "device": "GPU", "seconds": 3.2},
        {"chapter": "2 Two", "device": "CPU", "seconds": 61.0},
    ]
    table = BeautifulSoup(Runtimes.show(None, HEADER, rows), "html.parser")
    assert [
        [cell.get_text() for cell in row.find_all(["th", "td"])]
        for row in table.find_all("tr")
    ] == [
        ["chapter", "CPU", "GPU"],
        ["1 One", "7 s", "3 s"],
        ["2 Two", "61 s", "not yet measured"],
    ]


@pytest.mark.parametrize(
    ("source", "found", "rest"),
    [
        ("#| export\nx = 1", {"export": ""}, "x = 1"),
        ("#| hide\n#| eval: false\nx", {"hide": "", "eval": "false"}, "x"),
        (
            "#| fig-alt: one two\n#|   three: four\n#|   five\nplot()",
            {"fig-alt": "one two three: four five"},
            "plot()",
        ),
        ("#| default_exp text", {"default_exp": "text"}, ""),
        ("# NBVAL_IGNORE_OUTPUT\nx", {}, "x"),
        ("x = 1\n#| export\n", {}, "x = 1\n#| export"),
        ("x = 1  #| hide_line\ny", {}, "y"),
        ("# a comment\nx | y", {}, "# a comment\nx | y"),
    ],
)
def test_split_directives(source, found, rest):
    assert split_directives(source) == (found, rest)
