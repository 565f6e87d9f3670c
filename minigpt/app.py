"""The page behind `minigpt app`: a prompt, sliders, text that streams.

Gradio draws it and queues the visitors; minigpt.studio does the work. What
a visitor types and what the model writes is only ever put into text boxes
and labels, which show it as text, never as HTML. Nothing is fetched from
another host.
"""

import os
from collections.abc import Iterator
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
CSS = """
.gradio-container { max-width: 1100px !important; margin: auto !important; }
#prompt textarea, .text textarea {
  font-family: ui-monospace, Consolas, monospace; line-height: 1.5;
}
#status textarea { color: var(--body-text-color-subdued); }
.facts td:first-child { color: var(--body-text-color-subdued); }
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
    try:
        import gradio
    except ImportError:
        raise ValueError(
            "the app needs Gradio: pip install 'minigpt-course[app]'"
        ) from None
    return gradio


def _sampler(temperature, top_k, top_p, min_p) -> Sampler:
    """The settings of the sliders, whose ends mean off."""
    return Sampler(
        temperature=float(temperature),
        top_k=int(top_k) or None,
        top_p=float(top_p) if top_p < 1 else None,
        min_p=float(min_p) or None,
    )


def build(studio: Studio):
    """The page for a studio, a gradio.Blocks."""
    gr = _gradio()
    with gr.Blocks(
        title=f"minigpt: {studio.name}", analytics_enabled=False
    ) as page:
        gr.Markdown("# minigpt\nA small GPT writes on from your words.")
        with gr.Row():
            with gr.Column(scale=3):
                prompt = gr.Textbox(
                    label="Prompt", lines=3, max_length=MAX_PROMPT,
                    elem_id="prompt", placeholder="Begin a sentence …",
                )
                gr.Examples(
                    [[text] for text in examples(studio.tokenizer)], prompt,
                )
                with gr.Row():
                    go = gr.Button("Write", variant="primary", elem_id="go")
                    halt = gr.Button("Stop", elem_id="halt")
                status = gr.Textbox(
                    show_label=False, container=False, interactive=False,
                    elem_id="status", visible=False,
                )
                texts = _text_boxes(gr)
            with gr.Column(scale=2):
                knobs, wishes = _sliders(gr)
        with gr.Tab("Next token"):
            chart = gr.Label(
                label="What comes next, at the cursor", elem_id="chart",
                show_heading=False,
            )
            moved = gr.Button("moved", elem_id="moved", visible="hidden")
        with gr.Tab("Attention"):
            layer, heads = _attention_tab(gr, studio, prompt)
        with gr.Tab("The run"):
            _run_tab(gr, studio)

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
            [layer.change, prompt.change], heads[1], [prompt, layer],
            heads[0], api_visibility="private", **looks,
        )
    return page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)


def _text_boxes(gr) -> list:
    return [
        gr.Textbox(
            label=f"Text {n + 1}" if n else "Text", lines=8, max_lines=24,
            interactive=False, visible=n == 0, buttons=["copy"],
            elem_id=f"text{n}", elem_classes="text",
        )
        for n in range(MAX_SAMPLES)
    ]


def _sliders(gr) -> tuple[list, list]:
    """What forms the probabilities, and what is to be written."""
    knobs = [
        gr.Slider(0, 2, 0.8, step=0.05, label="Temperature",
                  info="0 always takes the likeliest", elem_id="temperature"),
        gr.Slider(0, 200, 0, step=1, label="Top-k", info="0 is off"),
        gr.Slider(0.05, 1, 0.95, step=0.05, label="Top-p", info="1 is off"),
        gr.Slider(0, 0.5, 0, step=0.01, label="Min-p", info="0 is off"),
    ]
    wishes = [
        gr.Slider(1, MAX_TOKENS, 200, step=1, label="Length", info="tokens",
                  elem_id="length"),
        gr.Slider(1, MAX_SAMPLES, 1, step=1, label="Samples"),
        gr.Number(1, precision=0, minimum=0, label="Seed", elem_id="seed",
                  info="The same seed writes the same text"),
    ]
    return knobs, wishes


def _writer(gr, studio: Studio):
    def write(
        prompt, temperature, top_k, top_p, min_p, length, samples, seed
    ) -> Iterator[list]:
        none = [gr.skip()] * MAX_SAMPLES
        try:
            wish = Wish(
                prompt or "", _sampler(temperature, top_k, top_p, min_p),
                int(length), int(samples), int(seed or 0),
            )
            begun = wish.prompt
            for written in studio.write(wish):
                full = [begun + text for text in written]
                yield [gr.update(visible=False), *_shown(gr, full)]
        except (ValueError, TypeError) as error:
            yield [gr.update(value=str(error), visible=True), *none]

    return write


def _shown(gr, texts: list[str]) -> list:
    more = MAX_SAMPLES - len(texts)
    boxes = [gr.update(value=text, visible=True) for text in texts]
    return boxes + [gr.update(visible=False)] * more


def _chart(gr, studio: Studio):
    def chart(prompt, temperature, top_k, top_p, min_p) -> dict[str, float]:
        sampler = _sampler(temperature, top_k, top_p, min_p)
        try:
            return studio.next_tokens(prompt or "", sampler)
        except ValueError:  # the status line says it when Write is pressed
            return {}

    return chart


def _attention_tab(gr, studio: Studio, prompt):
    layers = len(studio.model.h)
    layer = gr.Slider(1, layers, 1, step=1, label="Layer",
                      visible=layers > 1)
    gr.Markdown(
        "Each square is one head: a row is a token of the prompt, and dark "
        "cells are the tokens it looks at."
    )
    heads = gr.Plot(show_label=False, elem_id="heads")

    def draw(text, number):
        try:
            return _heads(*studio.attention(text or "", int(number)))
        except ValueError:
            return None

    return layer, (heads, draw)


def _heads(labels, maps):
    """A figure with one square for each head of maps (nh, T, T)."""
    from matplotlib.figure import Figure

    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows), layout="tight")
    figure.patch.set_alpha(0)
    for number, matrix in enumerate(maps):
        ax = figure.add_subplot(rows, columns, number + 1)
        ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        ax.set_title(f"head {number + 1}", size=9, color="grey")
        ax.tick_params(length=0, labelsize=6, colors="grey")
        ax.set_xticks([])
        few = len(labels) <= 16 and number % columns == 0
        ax.set_yticks(range(len(labels)) if few else [],
                      labels if few else [])
    return figure


def _run_tab(gr, studio: Studio) -> None:
    with gr.Row():
        gr.Dataframe(
            [list(pair) for pair in studio.facts()], headers=["", ""],
            interactive=False, show_label=False, elem_classes="facts",
            datatype="str", column_widths=["45%", "55%"],
        )
        if studio.rows:
            from io import BytesIO

            from PIL import Image

            drawn = Image.open(BytesIO(draw_losses(list(studio.rows))))
            gr.Image(drawn, label="Loss during training", buttons=[])


def serve(
    run: str | Path, *, device: str = "cpu", share: bool = False,
    host: str | None = None, port: int | None = None, block: bool = True,
):
    """Show the model in a folder (or `gpt2`) in a browser.

    host and port are Gradio's: 127.0.0.1 and the first free one from 7860,
    or GRADIO_SERVER_NAME and _PORT. Returns the page; with block=False at
    once.
    """
    gr = _gradio()
    page = build(open_studio(str(run), device))
    page.launch(
        share=share, server_name=host, server_port=port, quiet=True,
        prevent_thread_lock=not block, show_error=False, ssr_mode=False,
        footer_links=[], css=CSS, head=HEAD,
        theme=gr.themes.Soft(
            primary_hue="cyan", font=FONTS, font_mono=MONO
        ),
    )
    return page
