"""Small documents in the formats of other programs, written part by part."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

_RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
W = f'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" xmlns:r="{_RELATIONSHIPS}"'
W_MORE = (
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" '
    'xmlns:v="urn:schemas-microsoft-com:vml"'
)
P = (
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    f'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:r="{_RELATIONSHIPS}"'
)
ODF = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table")
) + (
    ' xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'office:version="1.3"'
)


def archive(path: Path, parts: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, text in parts.items():
            file.writestr(name, text)
    return path


def links(**targets: str) -> str:
    """The part with the links of another part: ``kind_number=target``."""
    items = "".join(
        f'<Relationship Id="{name}" Type="{_RELATIONSHIPS}/{name.partition("_")[0]}" Target="{target}"/>'
        for name, target in targets.items()
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{items}</Relationships>'
    )


# --- Word -----------------------------------------------------------------------------------------------


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*content: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}{''.join(part if part.startswith('<') else run(part) for part in content)}</w:p>"


def row(*cells: str, properties: str = "") -> str:
    content = "".join(f"<w:tc>{cell if cell.startswith('<') else paragraph(cell)}</w:tc>" for cell in cells)
    return f"<w:tr>{properties}{content}</w:tr>"


def table(*rows: str) -> str:
    return f"<w:tbl><w:tblPr/>{''.join(rows)}</w:tbl>"


def text_box(*paragraphs: str) -> str:
    """A text box as Word writes it: once for Word, and once for programs before 2010."""
    content = f"<w:txbxContent>{''.join(paragraphs)}</w:txbxContent>"
    drawing = f"<w:drawing><wps:wsp><wps:txbx>{content}</wps:txbx></wps:wsp></w:drawing>"
    choice = f'<mc:Choice Requires="wps">{drawing}</mc:Choice>'
    fallback = f"<mc:Fallback><w:pict><v:textbox>{content}</v:textbox></w:pict></mc:Fallback>"
    return f"<w:r><mc:AlternateContent>{choice}{fallback}</mc:AlternateContent></w:r>"


_STYLES = f"""<w:styles {W}>
<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
<w:style w:type="paragraph" w:styleId="Kapitel"><w:name w:val="Kapitel"/><w:basedOn w:val="berschrift1"/></w:style>
<w:style w:type="paragraph" w:styleId="Ebene"><w:name w:val="Ebene"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Text"><w:name w:val="Body Text"/></w:style>
</w:styles>"""


def docx(path: Path, *body: str, notes: Mapping[str, str] = {}, comments: str = "", header: str = "") -> Path:
    """A Word document with the styles of a German Word. ``notes``: footnotes by their ids."""
    footnotes = "".join(f'<w:footnote w:id="{key}">{paragraph(text)}</w:footnote>' for key, text in notes.items())
    parts = {
        "_rels/.rels": links(officeDocument="word/document.xml"),
        "word/_rels/document.xml.rels": links(
            styles="styles.xml",
            footnotes="footnotes.xml",
            comments="comments.xml",
            header_1="header1.xml",
            header_2="header2.xml",
        ),
        "word/document.xml": f"<w:document {W} {W_MORE}><w:body>{''.join(body)}<w:sectPr/></w:body></w:document>",
        "word/styles.xml": _STYLES,
        "word/footnotes.xml": f'<w:footnotes {W}><w:footnote w:id="-1" w:type="separator"/>{footnotes}</w:footnotes>',
        "word/comments.xml": f"<w:comments {W}>{comments}</w:comments>",
        "word/header1.xml": f"<w:hdr {W}>{paragraph(header) if header else ''}</w:hdr>",
        "word/header2.xml": f"<w:hdr {W}>{paragraph('')}</w:hdr>",
    }
    return archive(path, parts)


# --- PowerPoint -----------------------------------------------------------------------------------------


def shape(*paragraphs: str, kind: str = "") -> str:
    placeholder = f'<p:nvPr><p:ph type="{kind}"/></p:nvPr>' if kind else "<p:nvPr/>"
    text = "".join(f"<a:p><a:r><a:t>{one}</a:t></a:r></a:p>" for one in paragraphs)
    return f'<p:sp><p:nvSpPr><p:cNvPr id="1" name="x"/>{placeholder}</p:nvSpPr><p:txBody>{text}</p:txBody></p:sp>'


def slide(*shapes: str, root: str = "sld") -> str:
    return f"<p:{root} {P}><p:cSld><p:spTree>{''.join(shapes)}</p:spTree></p:cSld></p:{root}>"


def pptx(path: Path, *slides: str, notes: str = "", comments: str = "") -> Path:
    """A presentation, whose notes and comments belong to the first slide. The parts are in the opposite order."""
    numbers = list(range(len(slides), 0, -1))
    ids = "".join(f'<p:sldId id="{255 + number}" r:id="slide_{number}"/>' for number in numbers)
    parts = {
        "_rels/.rels": links(officeDocument="ppt/presentation.xml"),
        "ppt/presentation.xml": f"<p:presentation {P}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": links(
            **{f"slide_{number}": f"slides/slide{number}.xml" for number in numbers}
        ),
        **{f"ppt/slides/slide{number}.xml": text for number, text in zip(numbers, slides, strict=True)},
        f"ppt/slides/_rels/slide{numbers[0]}.xml.rels": links(
            notesSlide="../notesSlides/notesSlide1.xml", comments="/ppt/comments/comment1.xml"
        ),
        "ppt/notesSlides/notesSlide1.xml": slide(shape(notes, kind="body"), shape("7", kind="sldNum"), root="notes"),
        "ppt/comments/comment1.xml": f"<p:cmLst {P}><p:cm><p:text>{comments}</p:text></p:cm></p:cmLst>",
    }
    return archive(path, parts)


# --- LibreOffice ----------------------------------------------------------------------------------------


def odt(path: Path, *body: str) -> Path:
    content = f"<office:document-content {ODF}><office:body><office:text>{''.join(body)}</office:text></office:body>"
    return archive(
        path,
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"{content}</office:document-content>",
            "META-INF/manifest.xml": "<manifest/>",
        },
    )


# --- PDF ------------------------------------------------------------------------------------------------


def pdf(path: Path, *pages: str | bytes, filter_name: str = "") -> Path:
    """A PDF of one font: for each page a text of one line, or the operators that draw it."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in pages:
        operators = (
            page if isinstance(page, bytes) else f"BT /F1 12 Tf 72 700 Td ({page}) Tj ET".encode() if page else b""
        )
        filters = f" /Filter /{filter_name}".encode() if filter_name and isinstance(page, bytes) else b""
        objects.append(b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(operators), filters, operators))
        kids.append(len(objects) + 1)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
    refs = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (refs, len(kids))
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    path.write_bytes(data)
    return path


def draw_lines(*lines: tuple[int, int, str]) -> bytes:
    """The operators that draw lines at their places: x and y in points from the lower left corner, and the text."""
    return b"".join(f"BT /F1 10 Tf {x} {y} Td ({text}) Tj ET\n".encode() for x, y, text in lines)
