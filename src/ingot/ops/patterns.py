"""Regular expressions in the syntax of RE2 (https://github.com/google/re2/wiki/Syntax), which ONNX's are in,
as Python's. Most is common to both, the rest is written otherwise: to RE2 `\\d` is 0 to 9 alone,
`[[:alpha:]]` a class of letters, `$` the very end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Range = tuple[int, int]  # of code points, both ends included

_LAST = 0x10FFFF
_DIGITS, _UPPER, _LOWER = (0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)
_WORD = (_DIGITS, _UPPER, (0x5F, 0x5F), _LOWER)
_PERL: dict[str, Sequence[Range]] = {"d": (_DIGITS,), "s": ((9, 10), (12, 13), (32, 32)), "w": _WORD}
_POSIX: dict[str, Sequence[Range]] = {
    "alnum": (_DIGITS, _UPPER, _LOWER),
    "alpha": (_UPPER, _LOWER),
    "ascii": ((0, 0x7F),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 0x1F), (0x7F, 0x7F)),
    "digit": (_DIGITS,),
    "graph": ((0x21, 0x7E),),
    "lower": (_LOWER,),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((9, 13), (32, 32)),
    "upper": (_UPPER,),
    "word": _WORD,
    "xdigit": (_DIGITS, (0x41, 0x46), (0x61, 0x66)),
}
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_REPEATED = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??")
_NUMBERED = re.compile(r"\\(?:x\{([0-9A-Fa-f]+)\}|x([0-9A-Fa-f]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))")
_NAMED_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")
_GROUP = re.compile(r"\(\?(?:P?<(?P<name>\w+)>|(?P<flags>[a-zA-Z]*(?:-[a-zA-Z]+)?)(?P<end>[:)]))")


def python_pattern(text: str) -> str:
    """The same expression for Python's `re`.

    Raises:
        ValueError: RE2 refuses it (Python may find more that is wrong).
        NotImplementedError: it has what Python's expressions cannot say.
    """
    found: list[str] = []
    at, every_line = 0, False
    while at < len(text):
        c = text[at]
        if c == "\\":
            part, at = _escaped(text, at)
        elif c == "[":
            part, at = _class(text, at)
        elif text.startswith("(?", at):
            group = _GROUP.match(text, at)
            if group is None:
                raise ValueError(f"no such group at position {at}")
            every_line |= "m" in (group["flags"] or "")
            part, at = _group(group), group.end()
        elif c == "$":
            part, at = "$" if every_line else r"\Z", at + 1
        elif repeated := _REPEATED.match(text, at):
            part, at = repeated[0], repeated.end()
            if text[at : at + 1] in ("*", "+", "?"):
                raise ValueError(f"bad repetition at position {at}")
        else:
            part, at = re.escape(c) if c == "{" else c, at + 1
        found.append(part)
    return "".join(found)


def _group(group: re.Match[str]) -> str:
    """How a group that is more than parentheses begins."""
    if group["name"]:
        return f"(?P<{group['name']}>"
    flags: str = group["flags"]
    if not set(flags) <= set("imsU-"):
        raise ValueError(f"no such flags, {flags!r}")
    whole = group["end"] == ")"
    if "U" in flags or (whole and (group.start() or "-" in flags)) or ("m" in flags and not whole):
        raise NotImplementedError(f"flags {group[0]!r} at position {group.start()}")
    return group[0]


def _escaped(text: str, at: int) -> tuple[str, int]:
    """What a backslash and more stands for outside of classes, and where that ends."""
    letter = text[at + 1 : at + 2]
    if letter.lower() in _PERL:
        return f"[{_perl(letter)}]", at + 2
    if letter in ("b", "B"):  # of words of ASCII; Python's \B is not in an empty string
        return r"(?a:\b)" if letter == "b" else r"(?a:(?!\b))", at + 2
    if letter in ("A", "z"):
        return "\\" + letter.upper(), at + 2
    if letter == "Q":
        end = text.find("\\E", at)
        literal = text[at + 2 : end if end >= 0 else len(text)]
        return re.escape(literal), len(text) if end < 0 else end + 2
    character, end = _character(text, at)
    return re.escape(character), end


def _character(text: str, at: int) -> tuple[str, int]:
    """The one character that begins here, escaped or not, and where it ends."""
    if text[at] != "\\":
        return text[at], at + 1
    letter = text[at + 1 : at + 2]
    numbered = _NUMBERED.match(text, at)
    if numbered is not None:
        digits = numbered[1] or numbered[2]
        code = int(digits, 16) if digits else int(numbered[3], 8)
        if code > _LAST:
            raise ValueError(f"no such character, {numbered[0]}")
        return chr(code), numbered.end()
    if letter in _CONTROLS:
        return _CONTROLS[letter], at + 2
    if letter in ("p", "P", "C"):
        raise NotImplementedError(f"\\{letter} at position {at}")
    if not letter or letter.isalnum() or not letter.isascii():
        raise ValueError(f"bad escape \\{letter} at position {at}")
    return letter, at + 2


def _class(text: str, at: int) -> tuple[str, int]:
    """A class in brackets, and where it ends."""
    begin = at + 1 + text.startswith("^", at + 1)
    found, at = [text[at:begin]], begin
    while at < len(text) and (text[at] != "]" or at == begin):
        named = _NAMED_CLASS.match(text, at)
        if named is not None:
            if named[2] not in _POSIX:
                raise ValueError(f"no such class, {named[0]}")
            found.append(_ranges(_POSIX[named[2]], bool(named[1])))
            at = named.end()
        elif text[at] == "\\" and text[at + 1 : at + 2].lower() in _PERL:
            found.append(_perl(text[at + 1]))
            at += 2
        else:
            low, at = _character(text, at)
            high = low
            if text[at : at + 1] == "-" and text[at + 1 : at + 2] not in ("", "]"):
                high, at = _character(text, at + 1)
            if high < low:
                raise ValueError(f"bad range before position {at}")
            found.append(_ranges([(ord(low), ord(high))], False))
    if at == len(text):
        raise ValueError("a class without its end")
    return "".join(found) + "]", at + 1


def _perl(letter: str) -> str:
    return _ranges(_PERL[letter.lower()], letter.isupper())


def _ranges(ranges: Sequence[Range], others: bool) -> str:
    """Ranges, or all others, as they stand in brackets."""
    if others:
        ends = [-1, *(end for _, end in ranges)]
        starts = [*(start for start, _ in ranges), _LAST + 1]
        ranges = [(end + 1, start - 1) for end, start in zip(ends, starts, strict=True) if end + 1 < start]
    return "".join([f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges])
