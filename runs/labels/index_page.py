"""index.html: how to read a label report, and all of its contact sheets on one page, which loads nothing else."""

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from data.text import label
from runs.labels.doubted import Doubted
from runs.labels.sheets import Sheet, numbered
from runs.printing import counted

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Label report</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 1500px; margin: 2em auto; padding: 0 1em; color: #222 }}
p, table {{ max-width: 48em }} td, th {{ padding: .1em 1.2em .1em 0; text-align: left }}
td + td, th + th {{ text-align: right }} img {{ max-width: 100%; border: 1px solid #ddd }}
</style>
<h1>Label report</h1>
<p>{images} of {clients}, run {run}. The model would label {differ:,} of them differently.
This report was made on this machine, and nothing of it has been sent.</p>
<p><b>How it is ranked.</b> Each time the model arrived, it looked at every training image. The <i>margin</i> is the
score (logit) that it gave to the image's label, minus the highest score of any other class. The report sorts images by
the mean margin over all visits: the lower it is, the more the model doubts the label. The <i>suggested</i> class is the
one that the model found most probable at the last visit, or <i>keep</i> if that is the label itself.</p>
<p><b>What it does not say.</b> A doubted label need not be wrong: rare views of a class and images between two classes
rank high as well. Nor is a trusted one right: the model has learned from the same labels, and where most labels of a
class are wrong, it believes them. Look before you change a label.</p>
<p><a href="labels.csv">labels.csv</a> has all images. On the sheets, images in a red frame are those that the model
takes for another class.</p>{notes}
<table><tr><th>label</th><th>images</th><th>would be labelled differently</th></tr>
{rows}</table>
{sheets}</html>
"""


def index_page(run: str, doubted: Doubted, sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    """The page's text.

    Args:
        run: Its name.
        doubted: The ranking.
        sheets: One for each class that has images.
        notes: Further sentences.
    """
    names = {sheet.label: escape(numbered(doubted, sheet.label)) for sheet in sheets}
    rows = (
        f'<tr><td><a href="#class-{sheet.label}">{names[sheet.label]}</a></td><td>{sheet.images:,}</td>'
        f"<td>{sheet.differ:,}</td></tr>\n"
        for sheet in sheets
    )
    pictures = (
        f'<h2 id="class-{sheet.label}">{names[sheet.label]}</h2>\n'
        f'<a href="{quote(sheet.file)}"><img src="{quote(sheet.file)}" alt="{_alt(sheet)}" loading="lazy"></a>\n'
        for sheet in sheets
    )
    return PAGE.format(
        images=counted(len(doubted), "image"),
        clients=counted(len(doubted.roots), "client"),
        run=escape(label(run)),
        differ=int(doubted.differ.sum()),
        notes="".join(f"\n<p>{escape(note)}</p>" for note in notes),
        rows="".join(rows),
        sheets="".join(pictures),
    )


def _alt(sheet: Sheet) -> str:
    return "the most doubted image" if sheet.shown == 1 else f"the {sheet.shown:,} most doubted images"
