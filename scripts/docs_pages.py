"""Adds README, results, changelog, CONTRIBUTING and the notebooks to the website of mkdocs.yml, and adapts links."""

import json
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
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook_page(path)))
    return files


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its texts, its code and the printed output of each cell."""
    parts = list[str]()
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell["outputs"]]
        if text := "".join("".join(lines) for lines in shown).rstrip():
            parts.append(f"```text\n{text}\n```")
    parts.append(f"This page is the notebook `docs/notebooks/{path.name}`.")
    return "\n\n".join(parts) + "\n"


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
