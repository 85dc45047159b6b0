"""What MkDocs asks while it builds the site: pages that are made from the code, and files that live outside `docs/`.

A document is written for both readers: who opens it in the repository, and who opens the site. So a link to a file
outside `docs/` stays as it is, and leads to that file's page on the site. One that has no page there fails the strict build.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docsite import reference

ROOT: Final = Path(__file__).resolve().parents[1]
REPORT: Final = "bench/report"
DIARIES: Final = "bench/reports"
OUTSIDE: Final = {
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    **{
        f"{REPORT}/{p.name}": f"report/{p.name}"
        for p in sorted((ROOT / REPORT).glob("*.[ms][dv]*"))
    },
    **{f"{DIARIES}/{p.name}": f"reports/{p.name}" for p in sorted((ROOT / DIARIES).glob("*.md"))},
}
"""Files that are pages of the site, too."""
STANDS_FOR: Final = {
    **OUTSIDE,
    "README.md": "index.md",
    "packages/aegis-sdk/src/aegis_sdk/errors.py": "reference/errors.md",
    "packages/aegis-sdk/src/aegis_sdk/testing/__init__.py": "reference/testing.md",
}
"""What a link to a file outside `docs/` leads to."""
_LINK: Final = re.compile(r"(\]\()(?!https?:|#)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> None:
    """Each decision has its line in the navigation, by its own title."""
    inside = next(part["Inside"] for part in config.nav or [] if "Inside" in part)
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    inside.append({"Decisions": ["adr/index.md", *(f"adr/{path.name}" for path in decisions)]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for page, text in reference.pages():
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    here = page.file.src_uri
    source = {page_: source for source, page_ in OUTSIDE.items()}.get(here, f"docs/{here}")
    return _LINK.sub(lambda link: link[1] + _on_site(link[2], source, here), markdown)


def _on_site(target: str, source: str, here: str) -> str:
    """The way from page `here` to what `target` means in the file `source`."""
    meant = os.path.normpath(PurePosixPath(source).parent / target)
    page = STANDS_FOR.get(meant, meant.removeprefix("docs/"))
    return target if page == meant else os.path.relpath(page, PurePosixPath(here).parent)
