"""What mkdocs does beside reading docs/: pages made from code are added, and names of pages become links."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.generated import ROOT_PAGES, pages


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from code."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Make links of `docs/NAME.md` and of pages of the root, which the pages name for readers of the repository."""
    here = posixpath.dirname(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        target = found[1].removeprefix("docs/") if found[1].startswith("docs/") else ROOT_PAGES.get(found[1])
        if target is None or files.get_file_from_path(target) is None:
            return found[0]
        return f"[{found[0]}]({posixpath.relpath(target, here or '.')})"

    # Not inside fenced blocks.
    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        block if block.startswith("```") else re.sub(r"`((?:docs/)?[\w/-]+\.md)`(?!\])", link, block)
        for block in blocks
    )
