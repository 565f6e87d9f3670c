"""The app as its visitors meet it: over the network, and in a browser."""

import shutil
import time
from contextlib import nullcontext

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed")
from gradio_client import Client
from gradio_client.exceptions import AppError

from minigpt import app
from minigpt.cli import main

KNOBS = (0.8, 0, 0.95, 0)  # temperature, top-k, top-p, min-p


@pytest.fixture(scope="module")
def page(tiny_run):
    served = app.serve(tiny_run, block=False)
    yield served
    served.close()


@pytest.fixture
def client(page):
    return Client(page.local_url, verbose=False)


def write(client, prompt="ROMEO", length=15, samples=1, seed=1):
    """The status line, and the texts that are shown."""
    status, *boxes = client.predict(
        prompt, *KNOBS, length, samples, seed, api_name="/write"
    )
    shown = [box["value"] for box in boxes if box.get("visible")]
    return status.get("value"), shown


def test_one_seed_writes_one_text(client):
    status, (text,) = write(client)
    assert status is None and text.startswith("ROMEO") and len(text) == 20
    assert write(client) == (None, [text])
    assert write(client, seed=2)[1] != [text]
    assert write(client, samples=2)[1][0] == text


def test_text_streams(client):
    job = client.submit("to", *KNOBS, 600, 1, 1, api_name="/write")
    job.result(timeout=120)
    texts = [output[1]["value"] for output in job.outputs()]
    assert len(set(texts)) > 3
    assert all(b.startswith(a) for a, b in zip(texts, texts[1:]))


def test_eight_at_once_are_all_served(page):
    alone = write(Client(page.local_url, verbose=False), seed=5)
    jobs = [
        Client(page.local_url, verbose=False).submit(
            "ROMEO", *KNOBS, 15, 1, 5, api_name="/write"
        )
        for _ in range(8)
    ]
    for job in jobs:
        _, text, *_ = job.result(timeout=60)
        assert [text["value"]] == alone[1]


def test_thirty_at_once_are_all_served(page):
    """More than are written side by side: the rest wait in the queue."""
    client = Client(page.local_url, verbose=False)
    jobs = [
        client.submit("ROMEO", *KNOBS, 15, 1, seed, api_name="/write")
        for seed in range(30)
    ]
    for job in jobs:
        _, text, *_ = job.result(timeout=120)
        assert len(text["value"]) == 20


def test_nobody_waits_for_the_end_of_another_text(page, client):
    long = client.submit("ROMEO", *KNOBS, 1000, 4, 1, api_name="/write")
    assert write(Client(page.local_url, verbose=False), length=3)[1]
    assert not long.done()
    long.cancel()


@pytest.mark.parametrize(("changes", "words"), [
    ({"prompt": "o" * 100_000}, "shorten it to 2,000"),
    ({"prompt": "to be \N{OCTOPUS}"}, "\N{OCTOPUS}"),
    ({"seed": 10**30}, "choose 0 to 1,000,000,000,000,000"),
    ({"length": None}, "tokens is no number: write one"),
    ({"samples": None}, "samples is no number"),
    ({"seed": None}, "seed is no number"),
])
def test_what_cannot_be_written_is_said_in_the_status(client, changes, words):
    status, texts = write(client, **changes)
    assert words in status and not texts


@pytest.mark.parametrize(("knobs", "words"), [
    ((float("nan"), 0, 1, 0), "temperature is nan"),
    ((1, float("nan"), 1, 0), "top-k is no number"),
    ((1, 0, float("nan"), 0), "top_p is nan"),
    ((1, 0, 1, float("nan")), "min_p is nan"),
])
def test_no_number_is_no_setting(tiny_run, knobs, words):
    """What JSON cannot say, Python's JSON does."""
    import gradio

    studio = app.open_studio(str(tiny_run), "cpu")
    *_, (status, *_) = app._writer(gradio, studio)("to", *knobs, 5, 1, 1)
    assert words in status["value"] and status["visible"]
    assert app._chart(gradio, studio)("to", *knobs) == {}


def test_half_a_surrogate_pair_is_a_question_mark(tiny_run):
    assert app._text("a\ud800b\N{OCTOPUS}") == "a?b\N{OCTOPUS}"
    assert app._text(None) == ""


def test_names_and_facts_are_text_not_html(tiny_run):
    studio = app.open_studio(str(tiny_run), "cpu")
    attack = "<img src=x onerror=alert(1)>"
    studio.name = studio.told["data"] = studio.told["device"] = attack
    for html in (app._title(studio), app._facts(studio)):
        assert "<img src=x" not in html and "&lt;img src=x" in html


def test_a_formula_in_the_prompt_is_no_formula():
    import io

    import torch

    figure = app._heads(["$$", "\\frac{", "$"], torch.eye(3)[None])
    figure.savefig(io.BytesIO())
    shown = [x.get_text() for x in figure.axes[0].get_yticklabels()]
    assert shown == ["$$", "\\frac{", "$"]


def test_the_server_gives_and_takes_nothing_else(page, tiny_run):
    """No files of this machine, no uploads, no way round the queue."""
    import httpx

    base = f"{page.local_url}gradio_api"
    for path in ("/etc/passwd", f"{tiny_run}/config.json", "setup.py"):
        assert httpx.get(f"{base}/file={path}").status_code in (403, 404)
    sent = httpx.post(f"{base}/upload", files={"files": ("x", b"12345")})
    assert sent.status_code == 413
    asked = {"data": ["to", *KNOBS, 1000, 4, 1], "session_hash": "x"}
    for way in ("run", "api"):
        answer = httpx.post(f"{base}/{way}/write", json=asked)
        assert answer.status_code == 404
    assert httpx.get(f"{base}/runs").status_code == 404  # no history
    told = httpx.get(f"{page.local_url}config").text
    assert str(tiny_run) not in told and "someone" not in told


@pytest.mark.parametrize(
    "changes", [{"length": 10**6}, {"samples": 50}, {"seed": -3}]
)
def test_what_no_slider_can_ask_for_is_refused(client, changes):
    with pytest.raises(AppError):
        write(client, **changes)


def test_the_chart_has_labels_and_shares(client):
    chart = client.predict("to be", *KNOBS, api_name="/next_tokens")
    shares = [one["confidence"] for one in chart["confidences"]]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 1.001


def test_whoever_leaves_stops_the_writing(page, monkeypatch):
    """A closed connection ends the generation, not only its display."""
    import httpx

    steps = []
    real = app.Studio._work

    def work(studio, wish, pieces, stop):
        monkeypatch.setattr(pieces, "put", lambda item: (
            steps.append(item), type(pieces).put(pieces, item)
        ))
        real(studio, wish, pieces, stop)
        steps.append("over")

    monkeypatch.setattr(app.Studio, "_work", work)
    (number,) = (
        n for n, fn in page.fns.items() if fn.api_name == "write"
    )
    base = f"{page.local_url}gradio_api/queue"
    with httpx.Client(timeout=30) as visitor:
        visitor.post(f"{base}/join", json={
            "data": ["to be", *KNOBS, 1000, 4, 1],
            "fn_index": number, "session_hash": "leaver",
        }).raise_for_status()
        with visitor.stream(
            "GET", f"{base}/data", params={"session_hash": "leaver"}
        ) as events:
            for line in events.iter_lines():
                if "process_generating" in line:
                    break
    deadline = time.monotonic() + 30
    while "over" not in steps:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(steps) < 4 * 1000


def test_a_run_without_weights_is_one_sentence(tmp_path, tiny_run, capsys):
    shutil.copy(tiny_run / "config.json", tmp_path)
    shutil.copy(tiny_run / "tokenizer.json", tmp_path)
    assert main(["app", "--run", str(tmp_path)]) == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert main(["app", "--run", str(tmp_path / "none")]) == 2
    assert main(["app", "--run", str(tiny_run), "--port", "0"]) == 2


@pytest.mark.parametrize("words", [
    ("--host", "no.such.invalid"), ("--host", "192.0.2.1"), ("--port", "7"),
    ("--host", "127.0.0.1", "--port", "TAKEN"),
])
def test_a_place_that_cannot_be_had_is_one_sentence(
    tiny_run, words, capsys, monkeypatch
):
    """Gradio tries a hundred ports with an error each."""
    import socket

    if "7" in words:  # a port that only root may have
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socket, "create_server", refuse)
    with socket.create_server(("127.0.0.1", 0)) if "TAKEN" in words else (
        nullcontext()
    ) as taken:
        port = taken and str(taken.getsockname()[1])
        words = [port if word == "TAKEN" else word for word in words]
        assert main(["app", "--run", str(tiny_run), *words]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert "the app cannot use" in told and "choose another" in told
    assert port is None or f"port {port}" in told


@pytest.mark.parametrize("reached", [True, False])
def test_the_public_address_is_told_if_there_is_one(
    reached, capsys, monkeypatch
):
    class Page:
        local_url = "http://127.0.0.1:1/"
        share_url = "https://public" if reached else None

        def block_thread(self):
            """Somebody pressed Ctrl-C at once."""

    asked = []
    monkeypatch.setattr(
        app, "serve", lambda run, **words: asked.append(words) or Page())
    monkeypatch.setattr("minigpt.app_command.best_device", lambda: "cuda")
    assert main(["app", "--run", "x", "--share", "--device", "cpu"]) == 0
    assert asked[0]["device"] == "cpu"
    told = capsys.readouterr()
    assert asked[0]["share"] and "x is at http://127.0.0.1:1/" in told.out
    assert ("for everybody at https://public" in told.out) == reached
    assert "None" not in told.out
    assert ("there is no public address" in told.err) != reached


def test_without_gradio_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(ValueError, match="pip install"):
        app._gradio()


@pytest.fixture
def visit(page, browser):
    """A visitor on the page, and what went wrong or elsewhere."""
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    wrong = []
    tab.on("request", lambda r: None if r.url.startswith(
        (page.local_url, "data:", "blob:")) else wrong.append(r.url))
    tab.on("console", lambda message: wrong.append(message.text)
           if message.type == "error" else None)
    tab.goto(page.local_url)
    tab.wait_for_selector("#prompt textarea")
    tab.wait_for_selector("#chart >> text=%")
    yield tab
    tab.close()
    assert not wrong


TYPED = "() => document.querySelector('#text0 textarea').value"


def written(tab, length):
    """Press Write, wait for that many characters; all that was shown."""
    tab.evaluate("""() => { window.seen = []; const box =
        document.querySelector('#text0 textarea'); clearInterval(window.eye);
        window.eye = setInterval(() => window.seen.push(box.value), 5); }""")
    before = tab.evaluate(TYPED)
    tab.wait_for_timeout(500)  # the page reads what was typed
    tab.click("#go")
    tab.wait_for_function(
        f"old => ({TYPED})().length == {length} && ({TYPED})() != old",
        arg=before, timeout=90_000,
    )
    return tab.evaluate(TYPED), tab.evaluate("() => window.seen")


def test_a_visitor_types_and_sees_verse_stream(visit):
    visit.fill("#prompt textarea", "to be")
    visit.fill("#tokens input", "400")
    visit.keyboard.press("Tab")
    first, seen = written(visit, 405)
    assert first.startswith("to be") and len(set(seen)) > 3
    visit.fill("#seed input", "2")
    visit.keyboard.press("Tab")
    other, _ = written(visit, 405)
    visit.fill("#seed input", "1")
    visit.keyboard.press("Tab")
    again, _ = written(visit, 405)
    assert again == first != other


def test_a_slider_moves_the_chart(visit):
    def chart():
        return visit.inner_text("#chart")

    before = chart()
    visit.fill("#temperature input[type=number]", "0")
    visit.keyboard.press("Tab")
    visit.wait_for_function(
        "() => document.querySelector('#chart').innerText.includes('100%')")
    assert chart() != before


def test_the_chart_follows_the_cursor(visit):
    visit.fill("#prompt textarea", "ROMEO:")
    visit.click("#prompt textarea")
    charts = []
    for key in ("End", "Home", "End"):
        visit.keyboard.press(key)
        visit.wait_for_timeout(1500)
        charts.append(visit.inner_text("#chart"))
    assert charts[0] == charts[2] != charts[1]


def test_html_is_shown_as_text(page, visit, monkeypatch):
    attack = "<img src=x onerror=alert(1)><b>to</b>"
    shown = []
    visit.on("dialog", lambda dialog: shown.append(dialog.dismiss()))

    def echo(studio, wish):
        yield [attack]

    monkeypatch.setattr(app.Studio, "write", echo)
    monkeypatch.setattr(
        app.Studio, "next_tokens", lambda *_: {attack: 0.7, "b": 0.3})
    visit.fill("#prompt textarea", attack)
    visit.click("#go")
    visit.wait_for_function(
        f"({TYPED})().endsWith({attack!r})", timeout=20_000)
    visit.wait_for_selector("#chart >> text=onerror")
    assert visit.locator("#chart img").count() == 0
    assert not shown


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_a_phone(page, browser, theme):
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(f"{page.local_url}?__theme={theme}")
    tab.wait_for_selector("#prompt textarea")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()


def test_on_a_tablet_no_slider_reaches_past_its_place(page, browser):
    tab = browser.new_page(viewport={"width": 940, "height": 740})
    tab.goto(page.local_url)
    tab.wait_for_selector(".slider_input_container .max_value")
    past = tab.evaluate(
        """() => [...document.querySelectorAll(".slider_input_container")]
           .map(slider => slider.scrollWidth - slider.clientWidth)"""
    )
    assert len(past) == 4 and max(past) == 0
    tab.close()
