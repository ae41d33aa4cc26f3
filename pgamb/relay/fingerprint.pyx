# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A statement's text without its constants: what statements that differ only in values have in common.

An application that writes its values into the text never sends the same text twice, and each would have to be
classified anew. What a statement needs does not depend on its numbers, nor on what its strings contain, with two
exceptions that are looked into: names of times ('now'), what current_setting() and set_config() are given, and SET.

The rule of safety: two texts of one fingerprint must mean the same to the lexer but for values. So whatever makes
quoting less than obvious (comments, dollar quotes, backslashes, E'' and its kin) makes a text its own fingerprint, and
so does an unterminated string.
"""


cdef inline bint _in_word(unsigned char byte) noexcept nogil:
    """Tell whether a byte may stand within an identifier, or begin one."""
    return (
        b"a" <= byte <= b"z" or b"A" <= byte <= b"Z" or b"0" <= byte <= b"9" or byte == b"_" or byte == b"$"
        or byte >= 0x80
    )


cdef bint _is_plain(const char* text, size_t size) noexcept nogil:
    """Tell whether a string can be nothing but a value: no name of a time, whatever stands around it, no set_config."""
    cdef size_t i
    cdef unsigned char first
    for i in range(size):
        # now, today, tomorrow, yesterday: each contains "no", "to" or "ye".
        first = text[i] | 0x20
        if i + 1 < size and (
            (first == b"n" and (text[i + 1] | 0x20) == b"o") or (first == b"t" and (text[i + 1] | 0x20) == b"o")
            or (first == b"y" and (text[i + 1] | 0x20) == b"e")
            or (first == b"t" and text[i + 1] == b"_" and i + 2 < size and (text[i + 2] | 0x20) == b"c")
        ):
            return False
    return True


# What a byte is to the loop below.
cdef enum:
    ORDINARY = 0
    DIGIT = 1
    SPECIAL = 2

cdef unsigned char[256] _KIND

cdef void _fill_kinds() noexcept:
    cdef int byte
    for byte in range(256):
        _KIND[byte] = ORDINARY
    for byte in range(48, 58):
        _KIND[byte] = DIGIT
    for byte in b"'\"\\-*$;":
        _KIND[byte] = SPECIAL

_fill_kinds()


cdef size_t fingerprint(const char* sql, size_t size, char* into) noexcept nogil:
    """Write the fingerprint of `sql` to `into`, which has room for `size` bytes, and return its length.

    Returns 0 if the text must be its own fingerprint.
    """
    cdef size_t i = 0, out = 0, start
    cdef unsigned char byte, kind, previous
    while i < size and (sql[i] == b" " or sql[i] == b"\n" or sql[i] == b"\t" or sql[i] == b"\r"):
        i += 1
    if size - i >= 3 and (sql[i] | 0x20) == b"s" and (sql[i + 1] | 0x20) == b"e" and (sql[i + 2] | 0x20) == b"t":
        return 0
    while i < size:
        byte = sql[i]
        kind = _KIND[byte]
        if kind == ORDINARY:
            into[out] = byte
            out += 1
            i += 1
            continue
        previous = into[out - 1] if out else 0
        if kind == DIGIT:
            if _in_word(previous):
                # `a1`, `$1`, `0x1F`, `1_000`: part of a word.
                into[out] = byte
                i += 1
            else:
                into[out] = b"0"
                start = i
                while i < size and b"0" <= <unsigned char> sql[i] <= b"9":
                    i += 1
                if i < size and (i - start > 1 or byte != b"0") and (sql[i] | 0x20) in (b"x", b"o", b"b"):
                    # 10x1F is no number, and 0x1F would be one.
                    return 0
            out += 1
            continue
        if byte == b"'":
            # E'', B'', X'', N'', U&'': their quoting has rules of its own.
            if _in_word(previous) or previous == b"&":
                return 0
            i = _string_end(sql, i + 1, size)
            if i == 0 or _asks_setting(into, out):
                return 0
            into[out] = into[out + 1] = b"'"
            out += 2
            continue
        if byte == b'"':
            into[out] = byte
            out += 1
            i += 1
            while i < size and sql[i] != b'"':
                into[out] = sql[i]
                out += 1
                i += 1
            if i >= size:
                return 0
        elif byte == b"\\" or (byte == b"-" and previous == b"-") or (byte == b"*" and previous == b"/"):
            return 0
        elif byte == b"$" and not (i + 1 < size and b"0" <= <unsigned char> sql[i + 1] <= b"9"):
            return 0
        elif byte == b";" and not _is_last(sql + i + 1, size - i - 1):
            # Another statement, which may be a SET.
            return 0
        into[out] = byte
        out += 1
        i += 1
    return out


cdef size_t _string_end(const char* sql, size_t start, size_t size) noexcept nogil:
    """Return what follows the string whose contents begin at `start`; 0 if it is more than a plain value."""
    cdef size_t i = start
    while True:
        while i < size and sql[i] != b"'" and sql[i] != b"\\":
            i += 1
        if i >= size or sql[i] == b"\\":
            return 0
        if i + 1 < size and sql[i + 1] == b"'":
            i += 2
            continue
        return i + 1 if _is_plain(sql + start, i - start) else 0


cdef bint _is_last(const char* text, size_t size) noexcept nogil:
    """Tell whether nothing but white space is left."""
    cdef size_t i
    for i in range(size):
        if text[i] != b" " and text[i] != b"\n" and text[i] != b"\t" and text[i] != b"\r":
            return False
    return True


cdef bint _asks_setting(const char* text, size_t size) noexcept nogil:
    """Tell whether what stands before a string is `current_setting(` or `set_config(`, or ends like one of them."""
    cdef size_t end = size
    while end and (text[end - 1] == b" " or text[end - 1] == b"\n" or text[end - 1] == b"\t" or text[end - 1] == b"\r"):
        end -= 1
    if end == 0 or text[end - 1] != b"(":
        return False
    end -= 1
    while end and (text[end - 1] == b" " or text[end - 1] == b"\n" or text[end - 1] == b"\t" or text[end - 1] == b"\r"
                   or text[end - 1] == b'"'):
        end -= 1
    return _ends_with(text, end, b"setting", 7) or _ends_with(text, end, b"set_config", 10)


cdef bint _ends_with(const char* text, size_t end, const char* word, size_t size) noexcept nogil:
    """Compare without regard to case; `word` is in lower case."""
    cdef size_t i
    if end < size:
        return False
    for i in range(size):
        # An underscore has no case, and must not be taken for one.
        if (text[end - size + i] | (0 if word[i] == b"_" else 0x20)) != word[i]:
            return False
    return True


def fingerprint_of(bytes sql):
    """Return the fingerprint of a statement; for tests."""
    cdef bytearray into = bytearray(len(sql) + 1)
    cdef size_t size = fingerprint(sql, len(sql), into)
    return bytes(into[:size]) if size else sql
