#include "stream/proxy_header.h"

#include "base/err.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

static const char V1_BEGIN[] = "PROXY ";
static const uint8_t V2_BEGIN[] = { '\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };

enum { V1_BEGIN_BYTES = sizeof V1_BEGIN - 1, V2_HEAD_BYTES = 16 };

static int wrong(struct proxy_header *header, const char *text)
{
	header->wrong = text;
	return ERR_PROXY_HEADER;
}

static int incomplete(struct proxy_header *header, size_t need)
{
	header->need = need;
	return 0;
}

static bool begins_with(const uint8_t *bytes, size_t n, const void *begin, size_t begin_bytes)
{
	return !memcmp(bytes, begin, n < begin_bytes ? n : begin_bytes);
}

bool proxy_header_begins(const uint8_t *bytes, size_t n)
{
	return !n || begins_with(bytes, n, V1_BEGIN, V1_BEGIN_BYTES) ||
	       begins_with(bytes, n, V2_BEGIN, sizeof V2_BEGIN);
}

static void set_ipv4(struct proxy_header *header, const void *address, in_port_t port)
{
	struct sockaddr_in6 *client = &header->client;
	*client = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port };
	client->sin6_addr.s6_addr[10] = client->sin6_addr.s6_addr[11] = 0xff;
	memcpy(&client->sin6_addr.s6_addr[12], address, sizeof(struct in_addr));
	header->has_client = true;
}

static void set_ipv6(struct proxy_header *header, const void *address, in_port_t port)
{
	header->client = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port };
	memcpy(&header->client.sin6_addr, address, sizeof(struct in6_addr));
	header->has_client = true;
}

/* ---- version 1 ---- */

/* What follows up to the next blank, or to the end, goes to `word`, which is empty where there is nothing. */
static const char *take_word(const char *text, char word[INET6_ADDRSTRLEN])
{
	size_t n = strcspn(text, " ");
	size_t kept = n < INET6_ADDRSTRLEN ? n : 0;
	memcpy(word, text, kept);
	word[kept] = '\0';
	return text + n + (text[n] == ' ');
}

/* A number as the protocol wants it: no sign, no zero before another digit. */
static bool read_port(const char *word, in_port_t *port)
{
	unsigned value = 0;
	size_t n = strspn(word, "0123456789");
	if (!n || n > 5 || word[n] || (word[0] == '0' && n > 1))
		return false;
	for (size_t i = 0; i < n; i++)
		value = value * 10 + (unsigned)(word[i] - '0');
	*port = htons((uint16_t)value);
	return value <= UINT16_MAX;
}

/* "203.0.113.7 192.0.2.1 5060 9000", which is all of it. */
static bool read_ends(struct proxy_header *header, int family, const char *text)
{
	char words[4][INET6_ADDRSTRLEN];
	struct in6_addr from, to; /* large enough for IPv4 */
	in_port_t from_port, to_port;
	const char *end = text + strlen(text);
	for (int i = 0; i < 4; i++)
		text = take_word(text, words[i]);
	if (text != end || text[-1] == ' ' || inet_pton(family, words[0], &from) != 1 ||
	    inet_pton(family, words[1], &to) != 1 || !read_port(words[2], &from_port) ||
	    !read_port(words[3], &to_port))
		return false;
	if (family == AF_INET)
		set_ipv4(header, &from, from_port);
	else
		set_ipv6(header, &from, from_port);
	return true;
}

/* `line` is what stands between "PROXY " and the end. */
static int read_line(const char *line, size_t bytes, struct proxy_header *header)
{
	bool is_ipv4 = !strncmp(line, "TCP4 ", 5);
	if (!strcmp(line, "UNKNOWN") || !strncmp(line, "UNKNOWN ", 8))
		return (int)bytes;
	if (!is_ipv4 && strncmp(line, "TCP6 ", 5) != 0)
		return wrong(header, "PROXY header: neither TCP4 nor TCP6 nor UNKNOWN");
	if (!read_ends(header, is_ipv4 ? AF_INET : AF_INET6, line + 5))
		return wrong(header, is_ipv4 ? "PROXY header: TCP4 without two IPv4 addresses and two ports"
					     : "PROXY header: TCP6 without two IPv6 addresses and two ports");
	return (int)bytes;
}

static int read_v1(const uint8_t *bytes, size_t n, struct proxy_header *header)
{
	char line[PROXY_HEADER_V1_BYTES + 1];
	/* No further than the last place where it may end, so that it is wrong for one reason however it comes. */
	size_t most = n < PROXY_HEADER_V1_BYTES - 1 ? n : PROXY_HEADER_V1_BYTES - 1;
	const uint8_t *end = memchr(bytes, '\r', most);
	size_t before = end ? (size_t)(end - bytes) : most;
	if (memchr(bytes, '\n', before) || memchr(bytes, '\0', before))
		return wrong(header, "PROXY header: a line of version 1 ends in CR LF, and has no zero byte");
	if (before + 2 > PROXY_HEADER_V1_BYTES)
		return wrong(header, "PROXY header: a line of version 1 has at most 107 bytes");
	if (!end || before + 1 == n)
		return incomplete(header, before + 2);
	if (end[1] != '\n')
		return wrong(header, "PROXY header: a line of version 1 ends in CR LF, and has no zero byte");
	memcpy(line, bytes, before);
	line[before] = '\0';
	return read_line(line + V1_BEGIN_BYTES, before + 2, header);
}

/* ---- version 2 ---- */

uint32_t proxy_header_crc(uint32_t crc, const uint8_t *bytes, size_t n)
{
	/* Of four bits at a time: headers are short, and few have one. */
	static const uint32_t OF_NIBBLE[16] = { 0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
						0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
						0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
						0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75 };
	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc ^= bytes[i];
		crc = crc >> 4 ^ OF_NIBBLE[crc & 15];
		crc = crc >> 4 ^ OF_NIBBLE[crc & 15];
	}
	return ~crc;
}

static unsigned u16_at(const uint8_t *bytes)
{
	return (unsigned)bytes[0] << 8 | bytes[1];
}

static uint32_t u32_at(const uint8_t *bytes)
{
	return (uint32_t)u16_at(bytes) << 16 | u16_at(bytes + 2);
}

/* The checksum is of the header with zeros in its place. */
static bool is_intact(const uint8_t *bytes, size_t n, size_t at)
{
	static const uint8_t ZEROS[4] = { 0 };
	uint32_t crc = proxy_header_crc(0, bytes, at);
	crc = proxy_header_crc(crc, ZEROS, sizeof ZEROS);
	crc = proxy_header_crc(crc, bytes + at + sizeof ZEROS, n - at - sizeof ZEROS);
	return crc == u32_at(bytes + at);
}

/* Type, length in two bytes, value. Nothing but the checksum concerns us. */
static const char *check_tlvs(const uint8_t *bytes, size_t n, size_t at)
{
	enum { TYPE_CRC32C = 3, FIELD_HEAD_BYTES = 3, CRC_BYTES = 4 };
	size_t crc_at = 0;
	while (at < n) {
		if (n - at < FIELD_HEAD_BYTES || n - at - FIELD_HEAD_BYTES < u16_at(bytes + at + 1))
			return "PROXY header: its last field does not fit in it";
		size_t value_bytes = u16_at(bytes + at + 1);
		if (bytes[at] == TYPE_CRC32C && (value_bytes != CRC_BYTES || crc_at))
			return "PROXY header: its checksum is not one of four bytes";
		if (bytes[at] == TYPE_CRC32C)
			crc_at = at + FIELD_HEAD_BYTES;
		at += FIELD_HEAD_BYTES + value_bytes;
	}
	return crc_at && !is_intact(bytes, n, crc_at) ? "PROXY header: its checksum is not that of its bytes"
						      : NULL;
}

enum { FAMILY_NONE, FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, FAMILIES };
enum { TRANSPORT_NONE, TRANSPORT_STREAM, TRANSPORT_DATAGRAM, TRANSPORTS };

/* Two addresses, and two ports where there are such. */
static const size_t ENDS_BYTES[FAMILIES] = { 0, 12, 36, 216 };

static void take_client(const uint8_t *ends, unsigned family, struct proxy_header *header)
{
	in_port_t port;
	if (family == FAMILY_INET) {
		memcpy(&port, ends + 8, sizeof port);
		set_ipv4(header, ends, port);
	} else if (family == FAMILY_INET6) {
		memcpy(&port, ends + 32, sizeof port);
		set_ipv6(header, ends, port);
	} else if (family == FAMILY_UNIX) {
		header->client = (struct sockaddr_in6){ .sin6_family = AF_UNIX };
		header->has_client = true;
	}
}

/* All of it is there. */
static int read_proxied(const uint8_t *bytes, size_t n, struct proxy_header *header)
{
	unsigned family = bytes[13] >> 4, transport = bytes[13] & 15u;
	if (family >= FAMILIES || transport >= TRANSPORTS)
		return wrong(header,
			     "PROXY header: a family of addresses, or a transport, that there is not");
	if (n - V2_HEAD_BYTES < ENDS_BYTES[family])
		return wrong(header, "PROXY header: it is too short for its addresses");
	const char *why = check_tlvs(bytes, n, V2_HEAD_BYTES + ENDS_BYTES[family]);
	if (why)
		return wrong(header, why);
	if (transport != TRANSPORT_NONE)
		take_client(bytes + V2_HEAD_BYTES, family, header);
	return (int)n;
}

static int read_v2(const uint8_t *bytes, size_t n, struct proxy_header *header)
{
	enum { LOCAL, PROXY };
	if (n > sizeof V2_BEGIN && bytes[sizeof V2_BEGIN] >> 4 != 2)
		return wrong(header, "PROXY header: its version is neither 1 nor 2");
	if (n > sizeof V2_BEGIN && (bytes[sizeof V2_BEGIN] & 15u) > PROXY)
		return wrong(header, "PROXY header: its command is neither LOCAL nor PROXY");
	if (n < V2_HEAD_BYTES)
		return incomplete(header, V2_HEAD_BYTES);
	size_t bytes_all = V2_HEAD_BYTES + u16_at(bytes + 14);
	if (bytes_all > PROXY_HEADER_V2_BYTES)
		return wrong(header, "PROXY header: one of version 2 may have at most 4096 bytes");
	if (n < bytes_all)
		return incomplete(header, bytes_all);
	/* What LOCAL has with it is to be skipped, whatever it is. */
	if ((bytes[sizeof V2_BEGIN] & 15u) == LOCAL)
		return (int)bytes_all;
	return read_proxied(bytes, bytes_all, header);
}

int proxy_header_read(const uint8_t *bytes, size_t n, struct proxy_header *header)
{
	*header = (struct proxy_header){ 0 };
	if (!proxy_header_begins(bytes, n))
		return wrong(header, "no PROXY header: is the proxy to send one, as by send-proxy?");
	if (n && bytes[0] == V2_BEGIN[0])
		return n < sizeof V2_BEGIN ? incomplete(header, V2_HEAD_BYTES) : read_v2(bytes, n, header);
	/* The shortest line is "PROXY UNKNOWN". */
	return n < V1_BEGIN_BYTES ? incomplete(header, V1_BEGIN_BYTES) : read_v1(bytes, n, header);
}
