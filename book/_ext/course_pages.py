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
from sphinx.util.docutils import SphinxDirective

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
            source[0] = source[0].replace("{{ %s }}" % name, value)


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
        "Download the notebook</a></p>")
    title, rest = context["body"].split("</h1>", 1)
    context["body"] = f"{title}</h1>\n{links}{rest}"


def drop_thebe(app, pagename, templatename, context, doctree):
    """Drop Thebe: unused, and its scripts come from another host."""
    scripts = context.get("script_files")
    if scripts:
        scripts[:] = [
            script for script in scripts
            if "thebe" not in str(getattr(script, "filename", script)).lower()
            and "thebe" not in str(getattr(script, "attributes", "")).lower()
        ]


def setup(app):
    app.connect("config-inited", apply_settings, priority=100)
    app.connect("source-read", fill_addresses)
    app.connect("html-page-context", add_chapter_links, priority=800)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"version": "1", "parallel_read_safe": True,
            "parallel_write_safe": True}
