"""Numbers as the protocol writes them: network byte order, any alignment."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef inline uint32_t read_u32(const char* at) noexcept nogil:
    return (
        (<uint32_t> <uint8_t> at[0] << 24) | (<uint32_t> <uint8_t> at[1] << 16)
        | (<uint32_t> <uint8_t> at[2] << 8) | <uint32_t> <uint8_t> at[3]
    )


cdef inline uint16_t read_u16(const char* at) noexcept nogil:
    return (<uint16_t> <uint8_t> at[0] << 8) | <uint16_t> <uint8_t> at[1]


cdef inline void write_u32(char* at, uint32_t value) noexcept nogil:
    at[0] = <char> (value >> 24)
    at[1] = <char> (value >> 16)
    at[2] = <char> (value >> 8)
    at[3] = <char> value
