"""Adds README, results, changelog and CONTRIBUTING to the website of mkdocs.yml, and adapts links between pages."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # outside of docs/
    "README.md": "index.md",
    "recipes/RESULTS.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to pages of the website; links to other files of the repository become plain text."""
    sources = {page: source for source, page in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def adapt(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        address = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        found: Any = files.get_file_from_path(address) if address else None
        return f"[{text}]({address}{anchor})" if found and found.is_documentation_page() else text

    return LINK.sub(adapt, markdown)
