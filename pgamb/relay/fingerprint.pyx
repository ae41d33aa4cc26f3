# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A statement's text without its constants: what statements that differ only in values have in common.

An application that writes its values into the text never sends the same text twice, and each would have to be
classified anew. What a statement needs does not depend on its numbers, nor on what its strings contain, with two
exceptions that `routing` looks into: names of times ('now'), and the argument of current_setting().

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
    """Tell whether a string can be nothing but a value: it is no name of a time, whatever stands around that."""
    cdef size_t i
    cdef unsigned char first
    for i in range(size):
        # now, today, tomorrow, yesterday: each contains "no", "to" or "ye".
        first = text[i] | 0x20
        if i + 1 < size and (
            (first == b"n" and (text[i + 1] | 0x20) == b"o") or (first == b"t" and (text[i + 1] | 0x20) == b"o")
            or (first == b"y" and (text[i + 1] | 0x20) == b"e")
        ):
            return False
    return True


cdef size_t fingerprint(const char* sql, size_t size, char* into) noexcept nogil:
    """Write the fingerprint of `sql` to `into`, which has room for `size` bytes, and return its length.

    Returns 0 if the text must be its own fingerprint.
    """
    cdef size_t i = 0, out = 0, start
    cdef unsigned char byte, previous = 0
    while i < size:
        byte = sql[i]
        if b"0" <= byte <= b"9" and not _in_word(previous):
            into[out] = b"0"
            out += 1
            while i < size and b"0" <= <unsigned char> sql[i] <= b"9":
                i += 1
            # `1e5`, `0x1F`, `1_000`: the rest stays as it is, as part of a word.
            previous = b"0"
            continue
        if byte == b"'":
            # E'', B'', X'', N'', U&'': their quoting has rules of its own.
            if _in_word(previous) or previous == b"&":
                return 0
            start = i + 1
            i = start
            while True:
                while i < size and sql[i] != b"'" and sql[i] != b"\\":
                    i += 1
                if i >= size or sql[i] == b"\\":
                    return 0
                if i + 1 < size and sql[i + 1] == b"'":
                    i += 2
                    continue
                break
            if not _is_plain(sql + start, i - start) or _asks_setting(into, out):
                return 0
            into[out] = b"'"
            into[out + 1] = b"'"
            out += 2
            i += 1
            previous = b"'"
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
        into[out] = sql[i]
        out += 1
        previous = byte
        i += 1
    return out


cdef bint _asks_setting(const char* text, size_t size) noexcept nogil:
    """Tell whether what stands before a string is `current_setting(` or ends like it."""
    cdef size_t end = size
    cdef size_t i
    while end and (text[end - 1] == b" " or text[end - 1] == b"\n" or text[end - 1] == b"\t" or text[end - 1] == b"\r"):
        end -= 1
    if end == 0 or text[end - 1] != b"(":
        return False
    end -= 1
    while end and (text[end - 1] == b" " or text[end - 1] == b"\n" or text[end - 1] == b"\t" or text[end - 1] == b"\r"
                   or text[end - 1] == b'"'):
        end -= 1
    if end < 7:
        return False
    for i in range(7):
        if (text[end - 7 + i] | 0x20) != b"setting"[i]:
            return False
    return True


def fingerprint_of(bytes sql):
    """Return the fingerprint of a statement; for tests."""
    cdef bytearray into = bytearray(len(sql) + 1)
    cdef size_t size = fingerprint(sql, len(sql), into)
    return bytes(into[:size]) if size else sql
