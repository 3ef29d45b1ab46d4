"""Reads the sources of an answer, in the forms of OpenAI, OpenRouter, Perplexity, xAI and Anthropic.

Sources are metadata: one in an unknown form is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ctxbackends._chat.events import CitationDelta
from ctxbackends._chat.responses import Citation


def parse_annotations(annotations: object) -> Iterator[CitationDelta]:
    """Yield the citations among the annotations of a message.

    https://platform.openai.com/docs/guides/tools-web-search, https://openrouter.ai/docs/features/web-search
    """
    for item in annotations if isinstance(annotations, list) else ():
        if isinstance(item, Mapping) and item.get("type") == "url_citation":
            inner = item.get("url_citation", item)
            if isinstance(inner, Mapping) and (url := _text(inner.get("url"))):
                span = _span(inner.get("start_index"), inner.get("end_index"))
                yield CitationDelta(Citation(url, _text(inner.get("title")), span, _text(inner.get("content"))))


def parse_sources(citations: object, results: object) -> Iterator[CitationDelta]:
    """Yield the URLs of Perplexity and xAI, with the titles of Perplexity's ``search_results``.

    https://docs.perplexity.ai/api-reference/chat-completions-post
    """
    titles: dict[str, Mapping[str, Any]] = {}
    for item in results if isinstance(results, list) else ():
        if isinstance(item, Mapping) and (url := _text(item.get("url"))):
            titles.setdefault(url, item)
    urls = [url for url in citations if isinstance(url, str) and url] if isinstance(citations, list) else []
    for url in urls or titles:
        found = titles.get(url, {})
        yield CitationDelta(Citation(url, _text(found.get("title")), None, _text(found.get("snippet"))))


def parse_block_citation(value: object) -> CitationDelta | None:
    """Return a citation of a text block of the Messages API, None for an unknown form.

    https://platform.claude.com/docs/en/build-with-claude/citations. Its positions are those in the source, and not in
    the answer, so there is no span.
    """
    if not isinstance(value, Mapping):
        return None
    url, text = _text(value.get("url")) or _text(value.get("source")), _text(value.get("cited_text"))
    title = _text(value.get("title")) or _text(value.get("document_title"))
    return CitationDelta(Citation(url, title, None, text)) if url or text else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _span(start: object, end: object) -> tuple[int, int] | None:
    if type(start) is int and type(end) is int and 0 <= start <= end:
        return start, end
    return None
