"""The page behind `minigpt app`: a prompt, sliders, text that streams.

Gradio draws it and queues the visitors; minigpt.studio does the work. What
a visitor types and what the model writes is only ever put into text boxes
and labels, which show it as text, never as HTML. Nothing is fetched from
another host.
"""

import os
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path

from minigpt.callbacks import draw_losses
from minigpt.sampling import Sampler
from minigpt.studio import (
    MAX_PROMPT,
    MAX_SAMPLES,
    MAX_TOKENS,
    Studio,
    Wish,
    examples,
    open_studio,
)

AT_ONCE = 8  # visitors whose texts are written side by side
WAITING = 32  # visitors that may queue behind them
FONTS = ["system-ui", "sans-serif"]
MONO = ["ui-monospace", "Consolas", "monospace"]
# The book's blue, from light to dark.
BLUE = (
    "#eef6f8", "#d7ecf2", "#aed8e4", "#7cc0d4", "#45a3bd", "#1b86a3",
    "#0f6f8c", "#0b627c", "#0a4f64", "#0a3f50", "#062a36",
)
CSS = """
.gradio-container {
  width: 100% !important; max-width: 1180px !important;
  margin: auto !important;
}
#title h1 { font-size: 1.7rem; margin: 0; }
#title p { color: var(--body-text-color-subdued); margin: .2rem 0 0; }
#prompt textarea, .text textarea, #chart dt {
  font-family: ui-monospace, Consolas, monospace; line-height: 1.5;
}
#status textarea { color: var(--error-text-color); background: none; }
.numbers { gap: var(--spacing-sm); }
.slider_input_container, .slider_input_container input { min-width: 0; }
#chart .confidence-set { margin: 0 0 3px; padding: 0; }
#chart .inner-wrap { position: relative; height: 25px; }
#chart .bar {
  position: absolute; top: 0; left: 0; height: 100%; margin: 0;
  border-radius: 4px; background: var(--primary-200); min-width: 3px;
}
.dark #chart .bar { background: var(--primary-800); }
#chart .label { position: absolute; inset: 0 .6rem; align-items: center; }
#chart .line { border: 0; }
#facts table { width: 100%; border-collapse: collapse; }
#facts table, #facts tr, #facts td { border: 0 !important; }
#facts td {
  padding: .35rem .5rem; vertical-align: top; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--border-color-primary) !important;
}
#facts td:first-child { color: var(--body-text-color-subdued); }
#facts img { width: 100%; margin-top: 1rem; border-radius: 6px; }
.dark button[role="tab"].selected { color: var(--primary-400); }
.dark #facts img, .dark #heads img {
  filter: invert(.9) hue-rotate(180deg);
}
"""
# Tells the hidden button whenever the cursor in the prompt has moved.
HEAD = """<script>
let waiting;
document.addEventListener("selectionchange", () => {
  const box = document.querySelector("#prompt textarea");
  if (!box || document.activeElement !== box) return;
  clearTimeout(waiting);
  waiting = setTimeout(
    () => document.querySelector("#moved").click(), 120);
});
</script>"""
TO_CURSOR = """(text, ...rest) => {
  const box = document.querySelector("#prompt textarea");
  return [box ? text.slice(0, box.selectionStart) : text, ...rest];
}"""


def _gradio():
    """The library; ValueError that says how to get it."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # nor is what visitors write kept in their browsers
    os.environ.setdefault("GRADIO_RUN_HISTORY", "False")
    try:
        import gradio
    except ImportError:
        raise ValueError(
            'the app needs Gradio: pip install "minigpt-course[app]"'
        ) from None
    return gradio


def _number(kind: type, value, name: str) -> float:
    """ValueError if a field is empty or holds no number."""
    try:
        return kind(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{name} is no number: write one") from None


def _sampler(temperature, top_k, top_p, min_p) -> Sampler:
    """The settings of the sliders, whose ends mean off."""
    top_p = _number(float, top_p, "top-p")
    return Sampler(
        temperature=_number(float, temperature, "temperature"),
        top_k=_number(int, top_k, "top-k") or None,
        top_p=None if top_p == 1 else top_p,
        min_p=_number(float, min_p, "min-p") or None,
    )


def _text(typed: str | None) -> str:
    """What was typed; half a surrogate pair, which no answer can hold, is
    a question mark."""
    return (typed or "").encode("utf-8", "replace").decode()


def build(studio: Studio):
    """The page for a studio, a gradio.Blocks."""
    gr = _gradio()
    with gr.Blocks(
        title=f"minigpt: {studio.name}", analytics_enabled=False
    ) as page:
        gr.HTML(_title(studio), elem_id="title")
        with gr.Row():
            with gr.Column(scale=6, min_width=320):
                prompt, wishes, (go, halt) = _desk(gr, studio)
                status = gr.Textbox(
                    show_label=False, container=False, interactive=False,
                    elem_id="status", visible=False,
                )
                texts = _text_boxes(gr)
            with gr.Column(scale=5, min_width=320):
                knobs = _knobs(gr)
                with gr.Tab("Next token"):
                    chart = gr.Label(
                        label="What comes next, at the cursor in the prompt",
                        elem_id="chart", show_heading=False,
                    )
                    moved = gr.Button(
                        "moved", elem_id="moved", visible="hidden"
                    )
                with gr.Tab("Attention"):
                    layer, heads = _attention_tab(gr, studio)
                with gr.Tab("The model"):
                    gr.HTML(_facts(studio), elem_id="facts")

        inputs = [prompt, *knobs, *wishes]
        writing = gr.on(
            [go.click, prompt.submit], _writer(gr, studio), inputs,
            [status, *texts], concurrency_limit=AT_ONCE, api_name="write",
        )
        halt.click(None, cancels=[writing], api_visibility="private")
        looks = {"show_progress": "hidden", "concurrency_limit": AT_ONCE,
                 "trigger_mode": "always_last"}
        moved.click(
            _chart(gr, studio), [prompt, *knobs], chart, js=TO_CURSOR,
            api_name="next_tokens", **looks,
        )
        gr.on(
            [page.load, *(knob.change for knob in knobs)],
            _chart(gr, studio), [prompt, *knobs], chart, js=TO_CURSOR,
            api_visibility="private", **looks,
        )
        gr.on(
            [page.load, layer.change, prompt.change], heads[1], [prompt, layer],
            heads[0], api_visibility="private", **looks,
        )
    return page.queue(
        max_size=WAITING, default_concurrency_limit=AT_ONCE, api_open=False
    )


def _title(studio: Studio) -> str:
    """HTML; the folder's name could hold anything."""
    facts = dict(studio.facts())
    size = f"{facts['parameters']} parameters"
    return (
        f"<h1>{escape(studio.name)}</h1><p>A GPT with {escape(size)} writes "
        "on from your words.</p>"
    )


def _desk(gr, studio: Studio) -> tuple:
    """The prompt, how much is to be written, and the buttons."""
    known = examples(studio.tokenizer)
    prompt = gr.Textbox(
        known[0] if known else "", label="Prompt", lines=4, max_lines=10,
        max_length=MAX_PROMPT, elem_id="prompt",
        placeholder="Begin a sentence …",
    )
    if known:
        gr.Examples([[text] for text in known], prompt, label="For example")
    with gr.Row(elem_classes="numbers"):
        wishes = [
            gr.Number(
                value, label=label, precision=0, minimum=least, maximum=most,
                elem_id=label.lower(), min_width=80,
            )
            for label, value, least, most in (
                ("Tokens", 200, 1, MAX_TOKENS),
                ("Samples", 1, 1, MAX_SAMPLES),
                ("Seed", 1, 0, None),
            )
        ]
    with gr.Row():
        go = gr.Button(
            "Write", variant="primary", elem_id="go", min_width=120, scale=3
        )
        halt = gr.Button("Stop", elem_id="halt", min_width=80)
    return prompt, wishes, (go, halt)


def _text_boxes(gr) -> list:
    return [
        gr.Textbox(
            label=f"Text {n + 1}" if n else "Text", lines=10, max_lines=24,
            interactive=False, visible=n == 0, buttons=["copy"],
            elem_id=f"text{n}", elem_classes="text",
        )
        for n in range(MAX_SAMPLES)
    ]


def _knobs(gr) -> list:
    """What forms the probabilities."""
    rows = (
        (("Temperature", 0, 2, 0.8, 0.05, "0: greedy"),
         ("Top-k", 0, 200, 0, 1, "0: off")),
        (("Top-p", 0.05, 1, 0.95, 0.05, "1: off"),
         ("Min-p", 0, 0.5, 0, 0.01, "0: off")),
    )
    knobs = []
    for row in rows:
        with gr.Row():
            knobs += [
                gr.Slider(
                    least, most, value, step=step, label=label, info=info,
                    elem_id=label.lower(), min_width=150,
                )
                for label, least, most, value, step, info in row
            ]
    return knobs


def _writer(gr, studio: Studio):
    def write(
        prompt, temperature, top_k, top_p, min_p, length, samples, seed
    ) -> Iterator[list]:
        none = [gr.skip()] * MAX_SAMPLES
        try:
            wish = Wish(
                _text(prompt), _sampler(temperature, top_k, top_p, min_p),
                _number(int, length, "tokens"),
                _number(int, samples, "samples"),
                _number(int, seed, "seed"),
            )
            begun = wish.prompt
            for written in studio.write(wish):
                full = [begun + text for text in written]
                yield [gr.update(visible=False), *_shown(gr, full)]
        except ValueError as error:
            yield [gr.update(value=str(error), visible=True), *none]

    return write


def _shown(gr, texts: list[str]) -> list:
    more = MAX_SAMPLES - len(texts)
    boxes = [gr.update(value=text, visible=True) for text in texts]
    return boxes + [gr.update(visible=False)] * more


def _chart(gr, studio: Studio):
    def chart(prompt, temperature, top_k, top_p, min_p) -> dict[str, float]:
        try:
            sampler = _sampler(temperature, top_k, top_p, min_p)
            return studio.next_tokens(_text(prompt), sampler)
        except ValueError:  # the status line says it when Write is pressed
            return {}

    return chart


def _attention_tab(gr, studio: Studio):
    layers = len(studio.model.h)
    layer = gr.Slider(1, layers, 1, step=1, label="Layer",
                      visible=layers > 1)
    gr.Markdown(
        "Each square is one head. A row is a token of the prompt: the bluer "
        "a cell, the more the row looks at that token."
    )
    heads = gr.Plot(
        label="What each head looks at", show_label=False, elem_id="heads"
    )

    def draw(text, number):
        try:
            layer = _number(int, number, "layer")
            return _heads(*studio.attention(_text(text), layer))
        except ValueError:
            return None

    return layer, (heads, draw)


def _heads(labels, maps):
    """A figure with one square for each head of maps (nh, T, T)."""
    from matplotlib.figure import Figure

    columns = 2 if len(maps) < 6 else 3
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows), layout="tight")
    figure.patch.set_alpha(0)
    for number, matrix in enumerate(maps):
        ax = figure.add_subplot(rows, columns, number + 1)
        ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        ax.set_title(f"head {number + 1}", size=11, color="grey")
        ax.tick_params(length=0, labelsize=9, colors="grey")
        ax.set_xticks([])
        few = len(labels) <= 16 and number % columns == 0
        ax.set_yticks(range(len(labels)) if few else [],
                      labels if few else [], parse_math=False)
    return figure


def _facts(studio: Studio) -> str:
    """HTML: what is known of the model, and its loss curve."""
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>"
        for key, value in studio.facts()
    )
    table = f"<table><tbody>{rows}</tbody></table>"
    if not studio.rows:
        return table
    drawn = b64encode(draw_losses(list(studio.rows))).decode()
    return (
        f'{table}<img alt="Training and validation loss over the steps" '
        f'src="data:image/png;base64,{drawn}">'
    )


def _theme(gr):
    """The book's look."""
    grades = ("50", "100", "200", "300", "400", "500", "600", "700", "800",
              "900", "950")
    blue = gr.themes.Color(
        **{f"c{grade}": color for grade, color in zip(grades, BLUE)}
    )
    plain = {
        f"block_{part}_{what}{mode}": value
        for part in ("title", "label")
        for what, value in (
            ("background_fill", "transparent"),
            ("text_color", "*body_text_color"),
        )
        for mode in ("", "_dark")
    }
    return gr.themes.Soft(
        primary_hue=blue, neutral_hue="slate", font=FONTS, font_mono=MONO
    ).set(
        **plain,
        block_title_padding="0",
        block_label_border_width="0",
        block_label_shadow="none",
        block_info_text_color="*neutral_500",
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        input_background_fill="*neutral_50",
    )


def serve(
    run: str | Path, *, device: str = "cpu", share: bool = False,
    host: str | None = None, port: int | None = None, block: bool = True,
):
    """Show the model in a folder (or `gpt2`) in a browser.

    host and port are Gradio's: 127.0.0.1 and the first free one from 7860,
    or GRADIO_SERVER_NAME and _PORT. Says where the page is and stays until
    Ctrl-C; with block=False it returns the page at once, and says nothing.
    """
    gr = _gradio()
    page = build(open_studio(str(run), device))
    page.launch(
        share=share, server_name=host, server_port=port, quiet=True,
        prevent_thread_lock=True, show_error=False, ssr_mode=False,
        footer_links=[], css=CSS, head=HEAD, max_file_size=1,
        theme=_theme(gr),
    )
    if block:
        print(f"the app is at {page.local_url}, Ctrl-C ends it", flush=True)
        page.block_thread()
    return page
