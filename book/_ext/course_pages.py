"""What the pages of the book take from settings.ini and book/runs.

- Addresses: the repository, its branch and the site follow settings.ini.
  In book/*.md, {{ git_url }}, {{ colab_url }} ... stand for them.
- Every chapter starts with links: run it in Colab, download it.
- Directives: {sample}, {ladder} and {runtimes} show recorded runs.
"""

import html
from configparser import ConfigParser
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from ladder_picture import ladder_svg
from minigpt.runs import load_record, runs_dir

ROOT = Path(__file__).resolve().parents[2]
COLAB = "https://colab.research.google.com"


def read_settings():
    """Addresses and names from settings.ini, by the name used in pages."""
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    cfg = parser["DEFAULT"]
    slug = f"{cfg['user']}/{cfg['repo']}"
    return {
        "author": cfg["author"],
        "copyright": cfg["copyright"],
        "branch": cfg["branch"],
        "repo": cfg["repo"],
        "git_url": cfg["git_url"],
        "site_url": cfg["doc_host"] + cfg["doc_baseurl"].rstrip("/") + "/",
        "colab_url": f"{COLAB}/github/{slug}/blob/{cfg['branch']}",
    }


def apply_settings(app, config):
    settings = read_settings()
    config.author = settings["author"]
    config.copyright = settings["copyright"]
    config.html_baseurl = settings["site_url"]
    config.html_theme_options.update(
        repository_url=settings["git_url"],
        repository_branch=settings["branch"],
        path_to_docs="",
    )


def fill_addresses(app, docname, source):
    if docname.startswith("book/"):
        for name, value in read_settings().items():
            source[0] = source[0].replace(f"{{{{ {name} }}}}", value)


def add_chapter_links(app, pagename, templatename, context, doctree):
    """Put Colab and download links under a chapter's title."""
    if not pagename.startswith("nbs/") or "body" not in context:
        return
    root = context["pathto"]("", 1)
    colab = f"{read_settings()['colab_url']}/{pagename}.ipynb"
    links = (
        '<p class="chapter-links">'
        f'<a class="colab" href="{html.escape(colab)}">Run in Colab</a>'
        f'<a href="{root}_sources/{pagename}.ipynb" download>'
        "Download the notebook</a></p>"
    )
    title, rest = context["body"].split("</h1>", 1)
    context["body"] = f"{title}</h1>\n{links}{rest}"


def drop_list_role(app, pagename, templatename, context, doctree):
    """Docutils calls the references a list, and none of them an item."""
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">',
            '<div class="citation-list">',
        )


def drop_thebe(app, pagename, templatename, context, doctree):
    """Drop Thebe: unused, and its scripts come from another host."""
    scripts = context.get("script_files")
    if scripts:
        scripts[:] = [
            script
            for script in scripts
            if "thebe" not in str(getattr(script, "filename", script)).lower()
            and "thebe" not in str(getattr(script, "attributes", "")).lower()
        ]


class Recorded(SphinxDirective):
    """A directive that shows a file of book/runs: the first that exists."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        return [nodes.raw("", self.text(), format="html")]

    def text(self):
        for name in self.arguments[0].split():
            path = runs_dir() / f"{name}.jsonl"
            self.env.note_dependency(str(path))
            if path.is_file():
                header, rows = load_record(name)
                if not header.get("provisional"):
                    return self.show(header, rows)
        return '<p class="not-measured">Not yet recorded.</p>'


def source_line(header):
    """Command, device and date of a record, as HTML."""
    facts = [
        html.escape(header[key]) for key in ("device", "date") if key in header
    ]
    if "command" in header:
        facts.insert(0, f"<code>{html.escape(header['command'])}</code>")
    return ", ".join(facts)


class Sample(Recorded):
    """The last sample of a recorded run, and where it comes from."""

    option_spec = {"lines": directives.positive_int}

    def show(self, header, rows):
        samples = [row for row in rows if row["kind"] == "sample"]
        if not samples:
            raise self.error("the record holds no row of kind 'sample'")
        lines = samples[-1]["text"].strip("\n").splitlines()
        shown = lines[: self.options.get("lines", 20)]
        verse = "\n".join(  # course.css lets them appear one by one
            f'<span style="--line: {n}">{html.escape(line)}</span>'
            for n, line in enumerate(shown)
        )
        losses = [row["loss"] for row in rows if row["kind"] == "val"]
        return (
            '<figure class="record"><blockquote class="verse">'
            f"{verse}</blockquote><figcaption>A recorded run of "
            f"{header['params']:,} parameters, validation loss "
            f"{min(losses):.2f}: {source_line(header)}."
            "</figcaption></figure>"
        )


class Ladder(Recorded):
    """The loss ladder as bars."""

    def show(self, header, rows):
        return (
            f'<figure class="record">{ladder_svg(rows)}<figcaption>'
            "Validation loss on tiny Shakespeare, in nats per character; "
            "shorter is better. Every row is trained by its chapter's code "
            f"at the same small budget: {source_line(header)}."
            "</figcaption></figure>"
        )


class Runtimes(Recorded):
    """How long each chapter takes, by device."""

    def show(self, header, rows):
        devices = list(dict.fromkeys(row["device"] for row in rows))
        seconds = {
            (row["chapter"], row["device"]): row["seconds"] for row in rows
        }
        head = "".join(f"<th>{html.escape(name)}</th>" for name in devices)
        body = ""
        for chapter in dict.fromkeys(row["chapter"] for row in rows):
            cells = "".join(
                f"<td>{seconds[chapter, device]:.0f} s</td>"
                if (chapter, device) in seconds
                else '<td class="not-measured">not yet measured</td>'
                for device in devices
            )
            body += f"<tr><td>{html.escape(chapter)}</td>{cells}</tr>"
        return (
            '<table class="table"><thead><tr><th>chapter</th>'
            f"{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def setup(app):
    app.add_directive("sample", Sample)
    app.add_directive("ladder", Ladder)
    app.add_directive("runtimes", Runtimes)
    app.connect("config-inited", apply_settings, priority=100)
    app.connect("source-read", fill_addresses)
    app.connect("html-page-context", add_chapter_links, priority=800)
    app.connect("html-page-context", drop_list_role)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
