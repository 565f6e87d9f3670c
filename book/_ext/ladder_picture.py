"""The loss ladder as an SVG, for the book's first page and the README.

python book/_ext/ladder_picture.py    writes book/_static/ladder.svg
"""

import html
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "_static" / "ladder.svg"

WIDTH, ROW, BAR = 480, 46, 12
LEFT, RIGHT = 4, 62  # where bars start; room for the number at the end

# Alone (in the README) the picture follows the reader's light or dark mode;
# inside a page of the book it takes the page's colors (course.css, 5).
STYLE = """<style>
svg { font-family: system-ui, "Segoe UI", Roboto, sans-serif; }
.bar { fill: #0f6f8c; } .best .bar { fill: #b34b12; }
text { fill: #1f2933; } .note { fill: #566470; }
@media (prefers-color-scheme: dark) {
  .bar { fill: #5cc0dc; } .best .bar { fill: #f0a570; }
  text { fill: #d9e0e6; } .note { fill: #98a6b1; }
}
</style>"""


def ladder_svg(rows, alone=False):
    """Bars, one per row: {"chapter", "name", "loss"} (loss in nats).

    `alone` makes a file of its own; else it is to stand in an HTML page.
    """
    longest = max(row["loss"] for row in rows)
    best = min(row["loss"] for row in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    height = ROW * len(rows) + 4
    size = f' width="{WIDTH}" height="{height}"' if alone else ""
    words = ", ".join(f"{row['name']} {row['loss']:.2f}" for row in rows)
    out = [
        f'<svg class="ladder" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {WIDTH} {height}"{size}>',
        f"<title>Validation loss: {html.escape(words)}</title>",
    ]
    if alone:
        out.append(STYLE)
    for n, row in enumerate(rows):
        top = n * ROW
        length = row["loss"] * scale
        group = ' class="best"' if row["loss"] == best else ""
        out.append(
            f"<g{group}>"
            f'<text x="{LEFT}" y="{top + 17}" font-size="15">'
            f"{html.escape(row['name'])}"
            f'<tspan class="note" dx="8" font-size="13">chapter '
            f"{row['chapter']}</tspan></text>"
            f'<rect class="bar" x="{LEFT}" y="{top + 24}" rx="3" '
            f'width="{length:.1f}" height="{BAR}"/>'
            f'<text x="{LEFT + length + 8:.1f}" y="{top + 35}" '
            f'font-size="15" font-weight="600">{row["loss"]:.2f}</text></g>'
        )
    out.append("</svg>")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    from minigpt.runs import load_record

    TARGET.write_text(
        ladder_svg(load_record("ladder")[1], alone=True), encoding="utf-8"
    )
    print(f"wrote {TARGET.name}")
