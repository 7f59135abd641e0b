"""A page as a browser's parser sees it, for the tests: anchors, links, pictures, tables, text."""

from html.parser import HTMLParser

ALONE = {"meta", "img", "br", "link", "input", "hr"}  # elements without an end


class ReadPage(HTMLParser):
    """What stands in a page.

    Attributes:
        ids: Of all elements.
        links: Values of href.
        sources: Values of src, and of whatever else would fetch something.
        tables: Rows of cells' texts, of each table; a cell over several columns comes as often.
        captions: Texts of the figures' captions.
        text: All text outside the style and the script.
        faults: Elements that end where they should not.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.names: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self._span = 1
        self._text: list[str] = []
        self.feed(html)
        self.close()
        self.faults += self._open
        self.text = " ".join("".join(self._text).split())

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.sources += [given[k] for k in ("src", "srcset", "data", "action") if k in given]
        if tag not in ALONE:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._span = int(given.get("colspan", 1))
        elif tag == "figcaption":
            self.captions.append("")

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}>")
        if tag in ("td", "th"):
            row = self.tables[-1][-1]
            row += [row[-1]] * (self._span - 1)

    def handle_data(self, data):
        if {"style", "script"} & set(self._open):
            return
        self._text.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data
        if "figcaption" in self._open:
            self.captions[-1] += data
