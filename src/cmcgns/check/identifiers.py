"""What dates, telephone numbers, names, record numbers and e-mail addresses look like in text."""

import re
from collections.abc import Iterable

_MONTH = (
    r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|mar(?:ch)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|okt(?:ober)?|nov(?:ember)?|dec(?:ember)?|dez(?:ember)?|märz|mai|juni|juli|enero|febrero|marzo|"
    r"abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre|may)"
)


_LONG_MONTH = r"(?:january|february|march|april|june|july|august|september|october|november|december)"


_YEAR = r"(?:19|20)\d\d"


_DAY = r"(?:0?[1-9]|[12]\d|3[01])"


_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"


# What each kind looks like. Only what both RE2 (which searches a million reports in seconds) and `re` read alike.
# A year alone, a day and month in figures ("10/12"), levels and sizes are no identifiers or too often something else.
PATTERNS = {
    "date": "|".join(
        (
            rf"\b\d{{1,2}}[/.-]\d{{1,2}}[/.-]{_YEAR}\b",
            rf"\b{_YEAR}[/.-]{_MONTH_NUMBER}[/.-]{_DAY}\b",
            rf"\b{_MONTH_NUMBER}/{_DAY}/\d\d\b",
            rf"\b{_DAY}/{_MONTH_NUMBER}/\d\d\b",
            r"\b[0-3]\d\.[01]\d\.\d\d\b",
            rf"(?i:\b{_MONTH}\b\.? ?{_DAY}(?:st|nd|rd|th)?,? {_YEAR}\b)",
            rf"(?i:\b{_DAY}(?:st|nd|rd|th|\.)?[ -](?:of |de )?{_MONTH}\b\.?,?[ -](?:of |de |del )?{_YEAR}\b)",
            rf"(?i:\b{_LONG_MONTH} {_DAY}(?:st|nd|rd|th)?\b)",
            rf"(?i:\b{_DAY}(?:st|nd|rd|th)? (?:of )?{_LONG_MONTH}\b)",
        )
    ),
    "telephone number": "|".join(
        (
            r"\(\d{3}\) ?\d{3}[-. ]\d{4}\b",
            r"\b\d{3}[-.]\d{3}[-.]\d{4}\b",
            r"(?i:\b(?:phone|telephone|tel|fax|pager|paged at|beeper|mobile|call back)\b\.?:? ?)"
            r"(?i:(?:number|no\.?|#|at)?:? ?)"
            r"\+?\d[\d ()/.-]{3,}\d",
            r"(?:^|[^\w.])\+\d{1,3}[ -]?\(?\d{1,4}\)?[ -]?\d{2,4}[ -]?\d{2,}",
        )
    ),
    "name after a title": "|".join(
        (
            r"\b(?:Dr|Mr|Mrs|Ms|Prof|Frau|Herr|Sra|Srta|Sr)\.? (?:[A-Z]\. ?)*[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ'’-]+",
            r"\b(?:Dr|Mr|Mrs|Ms|Prof)\. (?:[A-Z]\. ?)*(?:[A-WYZ][A-Z]{2,}|X[A-WYZ][A-Z]+)\b",
            r"\b(?:DR|MR|MRS|MS|PROF)\. (?:[A-Z]\. ?)*(?:[A-WYZ][A-Z]{2,}|X[A-WYZ][A-Z]+)\b",
        )
    ),
    "record number": "|".join(
        (
            r"(?i:\b(?:mrn|medical record|patient id|accession|record number|ssn)\b[^0-9\n]{0,15})\d{4,}",
            r"\b\d{3}-\d\d-\d{4}\b",
            r"(?:^|[^\d.,])\d{7,}\b",
        )
    ),
    "e-mail address": r"[\w.+-]+@[\w-]+\.\w\w+",
}


ANY = "|".join(f"(?:{pattern})" for pattern in PATTERNS.values())


def identifier_kinds(texts: Iterable[str]) -> set[str]:
    """Kinds of identifiers that texts seem to hold (keys of :data:`PATTERNS`), for tags and comments of images."""
    return {kind for text in texts for kind, pattern in PATTERNS.items() if re.search(pattern, text)}
