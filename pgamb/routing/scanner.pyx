# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""PostgreSQL's tokens, by the rules of its own scanner (the manual's "Lexical Structure", `scan.l`).

What begins at a byte is told by that byte, and each kind of token has a method that finds its end: positions go in,
positions come out. Behind the text's end there is nothing: `is_at` and `kind` say no there. No byte is looked at more
than a few times, so the time taken grows with the text alone.

A piece that is no token is JUNK: PostgreSQL refuses it, or its releases disagree about it (`1abc`). So is what has no
end, and then nothing follows it. The methods answer NO_TOKEN to the first, NO_END to the second.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

JUNK = b""

NOTE_OPERATOR = _OPERATOR
NOTE_NAME = _NAME
NOTE_TIME = _TIME

cdef enum:
    NO_TOKEN = -1
    NO_END = -2

# What a byte can begin, or stand within.
cdef enum:
    SPACE = 1
    LETTER = 2
    DIGIT = 4
    HEX_DIGIT = 8
    OPERATOR = 16
    # A token by itself.
    ALONE = 32
    # In front of a quote, this letter belongs to it.
    PREFIX = 64
    # Goes on with a word: a letter, a digit or a dollar sign.
    WORD = 128

# What a closer look is worth while at.
cdef enum:
    _OPERATOR = 1
    _NAME = 2
    _TIME = 4

cdef unsigned char[256] KINDS


cdef void _fill_kinds() noexcept:
    cdef int byte
    for byte in range(256):
        KINDS[byte] = LETTER | WORD if byte >= 0x80 else 0
    for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_":
        KINDS[byte] = LETTER | WORD
    for byte in b"BENUXbenux":
        KINDS[byte] |= PREFIX
    for byte in b"0123456789":
        KINDS[byte] = DIGIT | WORD
    for byte in b"0123456789ABCDEFabcdef":
        KINDS[byte] |= HEX_DIGIT
    for byte in b" \t\n\r\f\v":
        KINDS[byte] = SPACE
    for byte in b"~!@#^&|`?+-*/%<>=":
        KINDS[byte] = OPERATOR
    for byte in b"(),;[]":
        KINDS[byte] = ALONE
    KINDS[ord("$")] = WORD

_fill_kinds()


@cython.final
cdef class Cutter:
    """Finds the ends of tokens in one text, which its user keeps alive."""

    cdef inline bint is_at(self, Py_ssize_t at, unsigned char byte) noexcept nogil:
        return at < self.size and self.text[at] == byte

    cdef inline unsigned char kind(self, Py_ssize_t at) noexcept nogil:
        return KINDS[self.text[at]] if at < self.size else 0

    cdef Py_ssize_t end_of_gap(self, Py_ssize_t at) noexcept nogil:
        """Return the position behind white space and comments; NO_END if a comment has none."""
        while at < self.size:
            if KINDS[self.text[at]] & SPACE:
                at += 1
            elif self.text[at] == b"-" and self.is_at(at + 1, b"-"):
                at = self.end_of_line(at)
            elif self.text[at] == b"/" and self.is_at(at + 1, b"*"):
                at = self.end_of_comment(at)
                if at == NO_END:
                    break
            else:
                break
        return at

    cdef Py_ssize_t end_of_line(self, Py_ssize_t at) noexcept nogil:
        while at < self.size and self.text[at] != b"\n" and self.text[at] != b"\r":
            at += 1
        return at

    cdef Py_ssize_t end_of_comment(self, Py_ssize_t at) noexcept nogil:
        """Return the position behind a comment, and those nested in it."""
        cdef Py_ssize_t depth = 0
        while at + 1 < self.size:
            if self.text[at] == b"/" and self.text[at + 1] == b"*":
                depth += 1
                at += 2
            elif self.text[at] == b"*" and self.text[at + 1] == b"/":
                depth -= 1
                at += 2
                if depth == 0:
                    return at
            else:
                at += 1
        return NO_END

    cdef Py_ssize_t end_of_token(self, Py_ssize_t at) noexcept nogil:
        cdef unsigned char byte = self.text[at]
        cdef unsigned char kind = KINDS[byte]
        cdef Py_ssize_t quote
        if kind & LETTER:
            quote = self.quote_behind_prefix(at) if kind & PREFIX else 0
            if quote == 0:
                return self.end_of_name(at)
            if self.text[quote] == b'"':
                return self.end_of_quotes(quote, False)
            if byte == b"n" or byte == b"N":
                return self.end_of_literal(quote, self.backslash)
            return self.end_of_literal(quote, byte == b"e" or byte == b"E")
        if kind & ALONE:
            return at + 1
        if kind & OPERATOR:
            return self.end_of_operator(at)
        if kind & DIGIT:
            return self.end_of_number(at)
        if byte == b".":
            return self.end_of_number(at) if self.kind(at + 1) & DIGIT else at + 1
        if byte == b"'":
            return self.end_of_literal(at, self.backslash)
        if byte == b'"':
            return self.end_of_quotes(at, False)
        if byte == b"$":
            return self.end_of_dollar(at)
        if byte == b":":
            return at + 2 if self.is_at(at + 1, b":") or self.is_at(at + 1, b"=") else at + 1
        return NO_TOKEN

    cdef Py_ssize_t end_of_name(self, Py_ssize_t at) noexcept nogil:
        """Return the position behind a word, and behind those that dots join to it without white space.

        A dotted name is one token: fewer tokens, and no keyword is mistaken for a column.
        """
        while True:
            while self.kind(at) & WORD:
                at += 1
            if not (self.is_at(at, b".") and self.kind(at + 1) & LETTER) or self.quote_behind_prefix(at + 1):
                return at
            at += 1

    cdef Py_ssize_t quote_behind_prefix(self, Py_ssize_t at) noexcept nogil:
        """Return the position of the quote that the letter here belongs to, 0 if there is none."""
        if not self.kind(at) & PREFIX:
            return 0
        if self.text[at] == b"u" or self.text[at] == b"U":
            if self.is_at(at + 1, b"&") and (self.is_at(at + 2, b"'") or self.is_at(at + 2, b'"')):
                return at + 2
            return 0
        return at + 1 if self.is_at(at + 1, b"'") else 0

    cdef bint is_number(self, Py_ssize_t at) noexcept nogil:
        """Tell numbers and parameters: a word must not begin right behind them."""
        if self.is_at(at, b".") or self.is_at(at, b"$"):
            at += 1
        return self.kind(at) & DIGIT

    cdef Py_ssize_t end_of_number(self, Py_ssize_t at) noexcept nogil:
        cdef Py_ssize_t end, start = at
        cdef unsigned char letter
        if self.is_at(at, b"0") and at + 1 < self.size:
            letter = self.text[at + 1] | 0x20
            end = self.end_of_digits(at + 2, 16 if letter == b"x" else 8 if letter == b"o" else 2)
            if (letter == b"x" or letter == b"o" or letter == b"b") and end > at + 2:
                return end
        if not self.is_at(at, b"."):
            at = self.end_of_digits(at, 10)
        if self.is_at(at, b"."):
            at += 1
            if self.kind(at) & DIGIT:
                at = self.end_of_digits(at, 10)
        if at > start and (self.is_at(at, b"e") or self.is_at(at, b"E")):
            end = at + 1
            if self.is_at(end, b"+") or self.is_at(end, b"-"):
                end += 1
            if self.kind(end) & DIGIT:
                at = self.end_of_digits(end, 10)
        return at

    cdef Py_ssize_t end_of_digits(self, Py_ssize_t at, int base) noexcept nogil:
        """Return the position behind digits; one underscore may stand in front of each."""
        cdef Py_ssize_t digit
        while True:
            digit = at + 1 if self.is_at(at, b"_") else at
            if base == 16:
                if not self.kind(digit) & HEX_DIGIT:
                    return at
            elif digit >= self.size or not b"0" <= self.text[digit] < 48 + base:
                return at
            at = digit + 1

    cdef Py_ssize_t end_of_operator(self, Py_ssize_t at) noexcept nogil:
        """Return the position behind an operator; a comment ends it."""
        while self.kind(at) & OPERATOR:
            if self.text[at] == b"-" and self.is_at(at + 1, b"-") or self.text[at] == b"/" and self.is_at(at + 1, b"*"):
                break
            at += 1
        return at

    cdef Py_ssize_t end_of_quotes(self, Py_ssize_t at, bint escapes) noexcept nogil:
        """Return the position behind what the quote here opens; a doubled quote is part of it."""
        cdef unsigned char quote = self.text[at]
        cdef const void* found
        at += 1
        while at < self.size:
            if not escapes:
                found = memchr(self.text + at, quote, self.size - at)
                if found == NULL:
                    break
                at = <const unsigned char*> found - self.text
            if self.text[at] == quote:
                if not self.is_at(at + 1, quote):
                    return at + 1
                at += 2
            else:
                at += 2 if self.text[at] == b"\\" else 1
        return NO_END

    cdef Py_ssize_t end_of_literal(self, Py_ssize_t at, bint escapes) noexcept nogil:
        """Return the position behind a literal.

        Literals separated by white space with a line break in it are one, with the quoting rules of the first.
        """
        cdef Py_ssize_t end = NO_END
        cdef bint line_break
        while True:
            at = self.end_of_quotes(at, escapes)
            if at == NO_END:
                return end
            end = at
            line_break = False
            while at < self.size:
                if KINDS[self.text[at]] & SPACE:
                    line_break = line_break or self.text[at] == b"\n" or self.text[at] == b"\r"
                    at += 1
                elif self.text[at] == b"-" and self.is_at(at + 1, b"-"):
                    at = self.end_of_line(at)
                else:
                    break
            if not (line_break and self.is_at(at, b"'")):
                return end

    cdef Py_ssize_t end_of_dollar(self, Py_ssize_t at) noexcept nogil:
        """Return the position behind a parameter (`$1`) or a dollar quote, whose tag is told by its case too."""
        cdef Py_ssize_t start = at, length
        cdef const void* found
        at += 1
        if self.kind(at) & DIGIT:
            while self.kind(at) & DIGIT:
                at += 1
            return at
        if self.kind(at) & LETTER:
            while self.kind(at) & (LETTER | DIGIT):
                at += 1
        if not self.is_at(at, b"$"):
            return NO_TOKEN
        at += 1
        length = at - start
        while at + length <= self.size:
            found = memchr(self.text + at, b"$", self.size - at)
            if found == NULL:
                break
            at = <const unsigned char*> found - self.text
            if at + length <= self.size and memcmp(self.text + at, self.text + start, length) == 0:
                return at + length
            at += 1
        return NO_END


cdef int _note_of(const unsigned char* token, Py_ssize_t size) noexcept nogil:
    """Tell what about a token, in lower case, deserves a closer look. Too much costs time; too little, a proof."""
    cdef unsigned char first = token[0]
    cdef unsigned char last = token[size - 1]
    if KINDS[first] & OPERATOR:
        return _note_of_operator(token, size)
    if last == b"'" or first == b"$":
        return _note_of_literal(token, size) if size > 4 else 0
    if last == b'"' or KINDS[first] & LETTER:
        return _note_of_name(token, size)
    return 0


cdef int _note_of_operator(const unsigned char* token, Py_ssize_t size) noexcept nogil:
    """Note every operator but those of one character that standard SQL has."""
    if size == 1 and token[0] not in b"~!@#&|`?":
        return 0
    return _OPERATOR


cdef int _note_of_literal(const unsigned char* token, Py_ssize_t size) noexcept nogil:
    """Note a literal that may be the name of a time: `'now'`, `'today 10:00'`, `E'n\157w'`."""
    cdef Py_ssize_t i
    cdef bint escapes = token[0] == b"e" or token[0] == b"u"
    for i in range(2, size):
        if token[i] == b"w":
            if token[i - 1] == b"o":
                return _TIME
        elif token[i] == b"y":
            if token[i - 1] == b"a":
                return _TIME
        elif token[i] == b"\n" or token[i] == b"\r":
            # Two literals that a line break joins, perhaps.
            return _TIME
        elif token[i] == b"\\" and escapes:
            return _TIME
    return _TIME if token[0] == b"u" else 0


cdef inline bint _is_own_prefix(unsigned char before, unsigned char letter) noexcept nogil:
    """Tell pg_, lo_, txid_, brin_, gin_ and ts_ by two letters."""
    return (
        letter == b"g" and before == b"p" or letter == b"o" and before == b"l" or letter == b"d" and before == b"i"
        or letter == b"n" and before == b"i" or letter == b"s" and before == b"t"
    )


cdef int _note_of_name(const unsigned char* token, Py_ssize_t size) noexcept nogil:
    """Note the names that PostgreSQL's own views, functions of one argument and times have."""
    cdef int note = 0
    cdef Py_ssize_t i
    cdef unsigned char before, following
    if token[size - 1] == b'"':
        if token[0] != b'"':
            return _NAME
        token += 1
        size -= 2
    for i in range(1, size - 1):
        before = token[i - 1]
        following = token[i + 1]
        if token[i] == b"_":
            if i > 1 and _is_own_prefix(token[i - 2], before):
                note |= _NAME
            # is_called, log_cnt, last_value; current_setting, binary_upgrade_...
            elif i + 2 < size and (
                following == b"c" and (token[i + 2] == b"a" or token[i + 2] == b"n")
                or following == b"v" and token[i + 2] == b"a"
                or following == b"s" and token[i + 2] == b"e" and before == b"t"
                or following == b"u" and token[i + 2] == b"p" and before == b"y"
            ):
                note |= _NAME
        elif token[i] == b"v":
            # nextval, currval, amvalidate
            if i > 1 and following == b"a" and (
                before == b"t" and token[i - 2] == b"x" or before == b"r" and token[i - 2] == b"r"
                or before == b"m" and token[i - 2] == b"a"
            ):
                note |= _NAME
        elif token[i] == b"s":
            # setseed
            if following == b"e" and before == b"t":
                note |= _NAME
    if size >= 3 and memcmp(token + size - 3, b"age", 3) == 0:
        if size == 3 or token[size - 4] == b".":
            note |= _TIME
    elif size >= 6 and memcmp(token + size - 6, b"timetz", 6) == 0:
        note |= _TIME
    elif size == 4 and memcmp(token, b"zone", 4) == 0:
        note |= _TIME
    return note


def cut(bytes sql, bytes text, bint standard_conforming_strings):
    cdef Cutter cutter = Cutter.__new__(Cutter)
    cdef const unsigned char* original = <const unsigned char*> PyBytes_AS_STRING(sql)
    cdef const char* lower = PyBytes_AS_STRING(text)
    cdef Py_ssize_t at = 0, end, size = PyBytes_GET_SIZE(sql)
    cdef bint keeps_case = memchr(original, b'"', size) != NULL
    cdef bint junk = False
    cdef int notes = 0
    cdef list words = []
    cdef list tokens = [] if keeps_case else words
    cdef bytes word
    if PyBytes_GET_SIZE(text) != size:
        raise ValueError("the text in lower case is another one")
    cutter.text = original
    cutter.size = size
    cutter.backslash = not standard_conforming_strings
    while True:
        at = cutter.end_of_gap(at)
        if at >= size:
            words.append(b";")
            if keeps_case:
                tokens.append(b";")
            return tokens, words, notes, junk
        end = NO_END if at == NO_END else cutter.end_of_token(at)
        if end < 0 or (cutter.kind(end) & WORD and cutter.is_number(at)):
            junk = True
            words.append(JUNK)
            if keeps_case:
                tokens.append(JUNK)
            if end == NO_END:
                return tokens, words, notes, junk
            at = end if end > 0 else at + 1
            continue
        notes |= _note_of(<const unsigned char*> lower + at, end - at)
        word = PyBytes_FromStringAndSize(lower + at, end - at)
        words.append(word)
        if keeps_case:
            if memcmp(original + at, lower + at, end - at) == 0:
                tokens.append(word)
            else:
                tokens.append(PyBytes_FromStringAndSize(<const char*> original + at, end - at))
        at = end
