/*
 * The header of the PROXY protocol, versions 1 (text) and 2 (binary): who the client is of a connection that a proxy
 * has made, as that says at its beginning.
 *
 *   PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\n
 *
 * Leaf: bytes in, an address out. https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PROXY_HEADER_V1_BYTES = 107,  /* at most, its end included: the protocol says so */
	PROXY_HEADER_V2_BYTES = 4096, /* at most; the protocol's 65,551 are for what nobody sends */
};

struct proxy_header {
	/* The client, as connections keep their peers: IPv4 is mapped; family AF_UNIX: neither address nor port. */
	struct sockaddr_in6 client;
	bool has_client;   /* false: the proxy speaks for itself (LOCAL), or does not know for whom */
	size_t need;       /* how many bytes there must be before it can be read on; more than there are */
	const char *wrong; /* what is wrong with it */
};

/*
 * Reads the header at the beginning of n bytes. > 0: how long it is; 0: it is not complete, see need; ERR_PROXY_HEADER:
 * it is none, see wrong. Which of these it is does not depend on how the bytes came, but that a wrong one may be told
 * of before all of it is there.
 */
int proxy_header_read(const uint8_t *bytes, size_t n, struct proxy_header *header);

/* Do these n bytes begin as a header does, as far as they go? */
bool proxy_header_begins(const uint8_t *bytes, size_t n);

/* CRC-32C (Castagnoli) of further bytes; of none it is 0. */
uint32_t proxy_header_crc(uint32_t crc, const uint8_t *bytes, size_t n);
