/*
 * A datagram in a stream of bytes: a record of the header that UDP gives it (RFC 768) and its bytes. So what a
 * connection counts of its input and output is what UDP carries, and datagrams of no bytes count, too. In the header
 * all but the length is 0: whoever reads it knows the ports.
 *
 * Leaf; any thread.
 */
#pragma once

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
	DATAGRAM_HEAD_BYTES = 8,
	DATAGRAM_BYTES_MAX = 65507, /* in one datagram of IPv4 */
};

/* Bytes of the record that begins here, header included; fewer than the header has: it is none. */
static inline size_t datagram_record_bytes(const uint8_t *head)
{
	uint64_t fields;
	memcpy(&fields, head, sizeof fields);
	fields = be64toh(fields);
	return fields & ~UINT64_C(0xffff0000) ? 0 : (size_t)(fields >> 16);
}

/* Writes the header in front of so many bytes, DATAGRAM_BYTES_MAX at most. */
static inline void datagram_put_head(uint8_t *head, size_t len)
{
	uint64_t fields = htobe64((uint64_t)(DATAGRAM_HEAD_BYTES + len) << 16);
	memcpy(head, &fields, sizeof fields);
}
