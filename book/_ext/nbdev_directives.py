"""MyST-NB reader that understands nbdev's and Quarto's `#|` directives.

Directives become MyST-NB cell tags and metadata; their lines (and nbval's
markers) are not shown. Sphinx calls `read_notebook` for every .ipynb
(nb_custom_formats in _config.yml).
"""

import ast
import re

import nbformat

DIRECTIVE = re.compile(r"^#\s?\|\s?([\w-]+)\s*:?\s*(.*?)\s*$")
CONTINUED = re.compile(r"^#\s?\|\s{2,}(.*?)\s*$")
MARKER = re.compile(r"^\s*#\s*NBVAL_\w+\s*$")
HIDE_LINE = re.compile(r"#\s*\|\s*hide_line\s*$")

TAGS = {
    ("hide", ""): "remove-cell",
    ("include", "false"): "remove-cell",
    ("hide_input", ""): "remove-input",
    ("echo", "false"): "remove-input",
    ("hide_output", ""): "remove-output",
    ("output", "false"): "remove-output",
    ("fold", ""): "hide-input",  # "code-fold: true" would be exported
    ("default_exp", None): "remove-cell",
    ("export", None): "exported",
    ("exports", None): "exported",
    ("exporti", None): "exported",
}


def split_directives(source):
    """({name: value}, source without its directive lines).

    A value goes on in lines `#|   more words`, indented two spaces or more.
    """
    found, lines, last = {}, [], None
    leading = True
    for line in source.splitlines(keepends=True):
        if leading and last and (more := CONTINUED.match(line)):
            found[last] = f"{found[last]} {more[1]}".strip()
        elif leading and (match := DIRECTIVE.match(line)):
            last = match[1]
            found[last] = match[2]
        elif not MARKER.match(line) and not HIDE_LINE.search(line):
            leading = leading and not line.strip()
            lines.append(line)
    return found, "".join(lines).strip("\n")


def fold_prompts(source):
    """What the row of a folded cell says: the names the cell defines."""
    body = ast.parse(source).body
    names = [node.name for node in body if hasattr(node, "name")]
    if all(isinstance(node, ast.Import | ast.ImportFrom) for node in body):
        what = "the imports"
    else:
        what = "the code" + (": " if names else "") + ", ".join(names)
    return {
        "code_prompt_show": f"Show {what}",
        "code_prompt_hide": f"Hide {what}",
    }


def apply_directives(cell):
    """Turn the directives of one code cell into tags; return them."""
    found, cell.source = split_directives(cell.source)
    tags = set(cell.metadata.get("tags", []))
    for name, value in found.items():
        for key in ((name, value.lower()), (name, None)):
            if key in TAGS:
                tags.add(TAGS[key])
    if tags:
        cell.metadata["tags"] = sorted(tags)
    mystnb = {}
    if "fold" in found and "export" in found:
        mystnb |= fold_prompts(cell.source)
    if "label" in found or "fig-cap" in found:
        mystnb["figure"] = figure = {}
        if "label" in found:
            figure["name"] = found["label"]
        if "fig-cap" in found:
            figure["caption"] = found["fig-cap"].strip("\"'")
    if "fig-alt" in found:
        mystnb["image"] = {"alt": found["fig-alt"].strip("\"'")}
    if mystnb:
        cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), **mystnb}
    return found


def read_notebook(text):
    """A notebook node, ready for MyST-NB, from the text of an .ipynb.

    Exported cells get the tag `into-MODULE`, which names where they land.
    """
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata.setdefault(
        "language_info", {"name": "python", "pygments_lexer": "ipython3"}
    )
    module = None
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        found = apply_directives(cell)
        module = found.get("default_exp", module)
        if "exported" in cell.metadata.get("tags", []) and module:
            cell.metadata["tags"] += [f"into-{module}"]
    return notebook


def mark_prose(output):
    """Sentences may wrap on a phone; what stands in columns may not."""
    text = re.sub(r"<[^>]+>", "", output[2])
    prose = "" if re.search(r"\S  +\S|\|", text) else " prose"
    return f'<div class="output stream{prose}{output[1]}{output[2]}</pre>'


def dress_cells(app, pagename, templatename, context, doctree):
    """Give exported cells the attribute that their badge shows.

    A folded cell is called to all what its row says, not one name for each.
    """
    if "tag_into-" in context.get("body", ""):
        body = re.sub(
            r'<div class="([^"]*\btag_into-(\w+)[^"]*)"',
            r'<div data-module="minigpt.\2" class="\1"',
            context["body"],
        )
        body = re.sub(
            r'<div class="output stream([^>]*>\s*<div[^>]*><pre>)(.*?)</pre>',
            mark_prose,
            body,
            flags=re.S,
        )
        context["body"] = body.replace(
            '<summary aria-label="Toggle hidden content">', "<summary>"
        )


def setup(app):
    app.connect("html-page-context", dress_cells)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
