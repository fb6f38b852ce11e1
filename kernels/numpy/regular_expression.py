"""Full matches of regular expressions in RE2's syntax, in time linear in the text.

A model is untrusted, and a backtracking matcher can be made to run for ever by a pattern of ten characters. Here a
pattern becomes a nondeterministic automaton whose states all advance together (Thompson, "Regular Expression Search
Algorithm", CACM 11(6), 1968): at most `len(text) * states` steps, states being bounded by `MAX_STATES`.

Understood: literals, `.`, classes with ranges, negation and POSIX names, \\d \\w \\s (ASCII, as in RE2) and their
negations, escapes (\\n \\t \\r \\f \\v \\a \\xHH \\x{H} \\Q..\\E), groups (captures are not kept), flags i, s, m, U,
alternation, * + ? {n} {n,} {n,m} (lazy forms too: what matches is the same), ^ $ \\A \\z \\b \\B. Not understood:
Unicode properties (\\p) and, as in RE2, look-around and back-references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = ["MAX_LENGTH", "MAX_STATES", "Automaton"]

MAX_LENGTH = 1000  # characters of a pattern
MAX_STATES = 10_000
MAX_REPEAT = 1000  # as in RE2
_MAX_NESTING = 100
_CACHE = 10_000  # remembered transitions


@dataclass(frozen=True)
class _Set:
    """One character out of ranges of code points, or none of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False
    fold: bool = False

    def contains(self, character: str) -> bool:
        forms = (character, character.lower(), character.upper()) if self.fold else (character,)
        codes = [ord(form) for form in forms if len(form) == 1]
        return any(low <= code <= high for code in codes for low, high in self.ranges) != self.negated


@dataclass(frozen=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True)
class _Repeat:
    body: _Node
    least: int
    most: int | None


@dataclass(frozen=True)
class _Assertion:
    holds: Callable[[str, str], bool]  # of the neighbours, "" at the ends of the text


_Node: TypeAlias = "_Set | _Sequence | _Choice | _Repeat | _Assertion"


@dataclass(frozen=True)
class _Flags:
    fold: bool = False
    dot_all: bool = False
    multi_line: bool = False


_DIGIT = ((48, 57),)
_WORD = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE = ((9, 10), (12, 13), (32, 32))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_POSIX: dict[str, tuple[tuple[int, int], ...]] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": _DIGIT,
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": _WORD,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_LAST = 0x10FFFF


def _is_word(character: str) -> bool:
    return character != "" and _Set(_WORD).contains(character)


def _at_boundary(before: str, after: str) -> bool:
    return _is_word(before) != _is_word(after)


_TEXT_START = _Assertion(lambda before, after: before == "")
_TEXT_END = _Assertion(lambda before, after: after == "")
_LINE_START = _Assertion(lambda before, after: before in ("", "\n"))
_LINE_END = _Assertion(lambda before, after: after in ("", "\n"))
_BOUNDARY = _Assertion(_at_boundary)
_NO_BOUNDARY = _Assertion(lambda before, after: not _at_boundary(before, after))
_ASSERTIONS = {"A": _TEXT_START, "z": _TEXT_END, "b": _BOUNDARY, "B": _NO_BOUNDARY}


class _Parser:
    """Recursive descent over a pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.at, self.depth = pattern, 0, 0

    def fail(self, why: str) -> ValueError:
        return ValueError(f"regular expression {self.pattern!r}: {why} at character {self.at}")

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def take(self, text: str) -> bool:
        found = self.peek(text)
        self.at += len(text) if found else 0
        return found

    def next(self) -> str:
        if self.at >= len(self.pattern):
            raise self.fail("it ends too early")
        self.at += 1
        return self.pattern[self.at - 1]

    def until(self, end: str) -> str:
        """The text before `end`, which is consumed."""
        stop = self.pattern.find(end, self.at)
        if stop < 0:
            raise self.fail(f"{end!r} is missing")
        found = self.pattern[self.at : stop]
        self.at = stop + len(end)
        return found

    def parse(self) -> _Node:
        node = self.choice(_Flags())
        if self.at < len(self.pattern):
            raise self.fail("unbalanced )")
        return node

    def choice(self, flags: _Flags) -> _Node:
        self.depth += 1
        if self.depth > _MAX_NESTING:
            raise self.fail(f"groups nest deeper than {_MAX_NESTING}")
        options: list[_Node] = []
        parts: list[_Node] = []
        while self.at < len(self.pattern) and not self.peek(")"):
            if self.take("|"):
                options.append(_Sequence(tuple(parts)))
                parts = []
            elif self.take("\\Q"):
                literal = self.until("\\E") if "\\E" in self.pattern[self.at :] else self.rest()
                parts.extend(_single(character, flags) for character in literal)
            elif self.peek("(?") and (changed := self.flag_group(flags)) is not None:
                flags = changed
            else:
                parts.append(self.repeated(self.atom(flags)))
        self.depth -= 1
        last = _Sequence(tuple(parts))
        return _Choice((*options, last)) if options else last

    def rest(self) -> str:
        found, self.at = self.pattern[self.at :], len(self.pattern)
        return found

    def flag_group(self, flags: _Flags) -> _Flags | None:
        """The flags after `(?i)`; None if another kind of group stands here."""
        stop = self.at + 2
        while stop < len(self.pattern) and (self.pattern[stop].isalpha() or self.pattern[stop] == "-"):
            stop += 1
        if self.pattern[stop : stop + 1] != ")" or stop == self.at + 2:
            return None
        changed = self.changed(flags, self.pattern[self.at + 2 : stop])
        self.at = stop + 1
        return changed

    def changed(self, flags: _Flags, text: str) -> _Flags:
        on = True
        for letter in text:
            match letter:
                case "-":
                    on = False
                case "i":
                    flags = replace(flags, fold=on)
                case "s":
                    flags = replace(flags, dot_all=on)
                case "m":
                    flags = replace(flags, multi_line=on)
                case "U":
                    pass
                case _:
                    raise self.fail(f"unknown flag {letter!r}")
        return flags

    def repeated(self, node: _Node) -> _Node:
        while True:
            if self.take("*"):
                bounds: tuple[int, int | None] | None = (0, None)
            elif self.take("+"):
                bounds = (1, None)
            elif self.take("?"):
                bounds = (0, 1)
            else:
                bounds = self.counts()
            if bounds is None:
                return node
            self.take("?")  # lazy: prefers the shorter, matches the same
            least, most = bounds
            if least > MAX_REPEAT or (most or 0) > MAX_REPEAT or (most is not None and most < least):
                raise self.fail(f"bad repetition {{{least},{most}}}, the limit is {MAX_REPEAT}")
            node = _Repeat(node, least, most)

    def counts(self) -> tuple[int, int | None] | None:
        """The bounds of {n}, {n,} or {n,m}; anything else in braces is literal text."""
        stop = self.pattern.find("}", self.at)
        if not self.peek("{") or stop < 0:
            return None
        low, comma, high = self.pattern[self.at + 1 : stop].partition(",")
        if not _is_count(low) or (high and not _is_count(high)):
            return None
        self.at = stop + 1
        if not comma:
            return int(low), int(low)
        return int(low), int(high) if high else None

    def atom(self, flags: _Flags) -> _Node:
        character = self.next()
        match character:
            case "(":
                return self.group(flags)
            case "[":
                return self.bracket(flags)
            case ".":
                return _Set(((0, _LAST),)) if flags.dot_all else _Set(((10, 10),), negated=True)
            case "^":
                return _LINE_START if flags.multi_line else _TEXT_START
            case "$":
                return _LINE_END if flags.multi_line else _TEXT_END
            case "\\":
                return self.escape(flags)
            case "*" | "+" | "?":
                raise self.fail(f"nothing for {character!r} to repeat")
            case _:
                return _single(character, flags)

    def group(self, flags: _Flags) -> _Node:
        if self.take("?"):
            if self.take("P<") or (self.peek("<") and not self.peek("<=") and not self.peek("<!") and self.take("<")):
                self.until(">")
            else:
                text = self.pattern[self.at : self.pattern.find(":", self.at) + 1]
                if not text or not all(letter in "imsU-:" for letter in text):
                    raise self.fail("this kind of group is not supported (look-around and back-references are not)")
                self.at += len(text)
                flags = self.changed(flags, text[:-1])
        node = self.choice(flags)
        if not self.take(")"):
            raise self.fail("missing )")
        return node

    def escape(self, flags: _Flags) -> _Node:
        character = self.next()
        if character in _ASSERTIONS:
            return _ASSERTIONS[character]
        if character.lower() in _CLASSES:
            return _Set(_CLASSES[character.lower()], negated=character.isupper())
        return _single(self.escaped(character), flags)

    def escaped(self, character: str) -> str:
        """The literal that a backslash and `character` stand for."""
        if character in _CONTROL:
            return _CONTROL[character]
        if character == "x":
            digits = self.until("}") if self.take("{") else self.next() + self.next()
            try:
                return chr(int(digits, 16))
            except (ValueError, OverflowError) as error:
                raise self.fail(f"bad character code {digits!r}") from error
        if character.isalnum():
            raise self.fail(f"escape \\{character} is not supported")
        return character

    def bracket(self, flags: _Flags) -> _Node:
        negated = self.take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self.take("]"):
            ranges.extend(self.member())
            first = False
        return _Set(tuple(ranges), negated, flags.fold)

    def member(self) -> Iterable[tuple[int, int]]:
        """The ranges of one item of a bracket expression."""
        if self.take("[:"):
            name = self.until(":]")
            known = _POSIX.get(name.removeprefix("^"))
            if known is None:
                raise self.fail(f"unknown class [:{name}:]")
            return _complement(known) if name.startswith("^") else known
        low = self.next()
        if low == "\\":
            low = self.next()
            if low.lower() in _CLASSES:
                known = _CLASSES[low.lower()]
                return _complement(known) if low.isupper() else known
            low = self.escaped(low)
        if not self.peek("-") or self.pattern[self.at + 1 : self.at + 2] in ("]", ""):
            return [(ord(low), ord(low))]
        self.at += 1
        high = self.next()
        if high == "\\":
            high = self.escaped(self.next())
        if high < low:
            raise self.fail(f"bad range {low}-{high}")
        return [(ord(low), ord(high))]


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _single(character: str, flags: _Flags) -> _Set:
    return _Set(((ord(character), ord(character)),), fold=flags.fold)


def _complement(ranges: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    gaps, start = [], 0
    for low, high in ranges:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    return [*gaps, (start, _LAST)]


class Automaton:
    """A compiled pattern. Raises ValueError for what it does not understand and for too large ones."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_LENGTH:
            raise ValueError(f"a regular expression may have {MAX_LENGTH} characters, got {len(pattern)}")
        self._pattern = pattern
        # A state is a set and where a member of it leads, an assertion and where it leads, or a fork.
        self._states: list[tuple[_Set | _Assertion | None, tuple[int, ...]]] = [(None, ())]
        self._accept = 0
        self._start = self._compile(_Parser(pattern).parse(), self._accept)
        self._contextual = any(isinstance(test, _Assertion) for test, _ in self._states)
        self._moves: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        states = self._closure([self._start], "", text[:1])
        for at, character in enumerate(text):
            if not states:
                return False
            states = self._move(states, character, text[at + 1 : at + 2])
        return self._accept in states

    def _add(self, test: _Set | _Assertion | None, targets: tuple[int, ...]) -> int:
        if len(self._states) >= MAX_STATES:
            raise ValueError(f"regular expression {self._pattern!r} needs more than {MAX_STATES} states")
        self._states.append((test, targets))
        return len(self._states) - 1

    def _compile(self, node: _Node, follow: int) -> int:
        """The state from which `node`, then `follow`, is matched."""
        match node:
            case _Sequence(parts=parts):
                for part in reversed(parts):
                    follow = self._compile(part, follow)
                return follow
            case _Choice(options=options):
                return self._add(None, tuple(self._compile(option, follow) for option in options))
            case _Repeat(body=body, least=least, most=most):
                return self._repeat(body, least, most, follow)
            case _Set() | _Assertion():
                return self._add(node, (follow,))

    def _repeat(self, body: _Node, least: int, most: int | None, follow: int) -> int:
        if most is None:
            loop = self._add(None, ())
            self._states[loop] = (None, (self._compile(body, loop), follow))
            follow = loop
        else:
            end = follow
            for _ in range(most - least):
                follow = self._add(None, (self._compile(body, follow), end))
        for _ in range(least):
            follow = self._compile(body, follow)
        return follow

    def _move(self, states: frozenset[int], character: str, following: str) -> frozenset[int]:
        key = (states, character)
        known = None if self._contextual else self._moves.get(key)
        if known is not None:
            return known
        targets: list[int] = []
        for state in states:
            test, after = self._states[state]
            if isinstance(test, _Set) and test.contains(character):
                targets.extend(after)
        moved = self._closure(targets, character, following)
        if not self._contextual:
            if len(self._moves) >= _CACHE:
                self._moves.clear()
            self._moves[key] = moved
        return moved

    def _closure(self, states: list[int], before: str, after: str) -> frozenset[int]:
        """The states reached without reading, between the characters `before` and `after`."""
        reached, pending = set[int](), list(states)
        while pending:
            state = pending.pop()
            if state in reached:
                continue
            reached.add(state)
            test, targets = self._states[state]
            if test is None or (isinstance(test, _Assertion) and test.holds(before, after)):
                pending.extend(targets)
        return frozenset(reached)
