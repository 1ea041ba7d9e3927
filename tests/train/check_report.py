#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A report is well-formed XML and HTML, needs nothing but itself, and names what it draws."""
import html.parser
import re
import sys
import xml.etree.ElementTree as ET

text = open(sys.argv[1], encoding="utf-8").read()
root = ET.fromstring(text.replace("<!DOCTYPE html>", "", 1))
ns = "{http://www.w3.org/1999/xhtml}"

ids = [e.get("id") for e in root.iter() if e.get("id")]
assert len(ids) == len(set(ids)), "ids are unique"
for e in root.iter():
    assert e.tag not in (ns + "script", ns + "link", ns + "img", ns + "iframe"), e.tag
    for name in e.attrib:
        assert not name.startswith("on") and name not in ("src", "href"), name
    for ref in (e.get("aria-labelledby") or "").split():
        assert ref in ids, f"label {ref}"
for svg in root.iter(ns + "svg"):
    assert svg.get("role") == "img" or svg.get("aria-hidden") == "true", "a chart has a role"
    for path in svg.iter(ns + "path"):
        assert re.fullmatch(r"M(-?[0-9.]+ ?)+(Z)?", path.get("d")), path.get("d")[:80]
assert "url(" not in text and "@import" not in text, "nothing from elsewhere"


class Reader(html.parser.HTMLParser):
    stack = []

    def handle_starttag(self, tag, attrs):
        self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, tag


reader = Reader()
reader.feed(text)
reader.close()
assert not reader.stack, reader.stack
