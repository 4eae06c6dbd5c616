#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"
#include "net/address.h"
#include "stream/proxy_header.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 16, FIELDS_AT = HEAD_BYTES + 12 };

static struct proxy_header header;

/* Of a copy without slack, so that a sanitizer sees a byte read too many. */
static int read_bytes(const void *bytes, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);
	memcpy(copy, bytes, n);
	int result = proxy_header_read(copy, n, &header);
	free(copy);
	if (result < 0) {
		assert_int_equal(result, ERR_PROXY_HEADER);
		assert_non_null(header.wrong);
	} else if (!result) {
		assert_true(header.need > n);
	}
	return result;
}

static void expect_client(const char *wanted)
{
	char text[ADDRESS_TEXT_BYTES];
	assert_true(header.has_client);
	address_text((const struct sockaddr *)(const void *)&header.client, text, sizeof text);
	assert_string_equal(text, wanted);
}

/*
 * It is complete with its last byte and not before, and what follows does not matter. What is too short says how much
 * there must be, and never too much.
 */
static void expect_whole(const void *bytes, size_t n)
{
	uint8_t more[8192];
	for (size_t part = 0; part < n; part++) {
		assert_int_equal(read_bytes(bytes, part), 0);
		assert_true(header.need <= n);
		assert_true(proxy_header_begins(bytes, part));
	}
	memset(more, 'x', sizeof more);
	memcpy(more, bytes, n);
	assert_int_equal(read_bytes(more, n + 100), n);
	assert_int_equal(read_bytes(bytes, n), n);
}

static void expect_wrong(const void *bytes, size_t n)
{
	assert_true(read_bytes(bytes, n) < 0);
	const char *why = header.wrong;
	/* It was wrong from some byte on, for the same reason. */
	for (size_t part = 0, failed = 0; part < n; part++) {
		bool fails = read_bytes(bytes, part) < 0;
		assert_true(fails || !failed);
		failed += fails;
		if (fails)
			assert_ptr_equal(header.wrong, why);
	}
}

/* ---- version 1 ---- */

static void a_line_names_the_client(void **state)
{
	(void)state;
	static const struct {
		const char *line, *client;
	} CASES[] = {
		{ "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\n", "203.0.113.7:5060" },
		{ "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0" },
		{ "PROXY TCP6 2001:db8::7 ::1 5060 9000\r\n", "[2001:db8::7]:5060" },
		{ "PROXY TCP6 ::ffff:10.0.0.7 ::1 1 2\r\n", "10.0.0.7:1" },
		{ "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n",
		  "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" },
	};
	for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
		expect_whole(CASES[i].line, strlen(CASES[i].line));
		expect_client(CASES[i].client);
	}
}

static void an_unknown_client_is_none(void **state)
{
	(void)state;
	char line[PROXY_HEADER_V1_BYTES + 2];
	static const char *const LINES[] = { "PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n",
					     "PROXY UNKNOWN ffff::1 whatever 1 x\r\n" };
	for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
		expect_whole(LINES[i], strlen(LINES[i]));
		assert_false(header.has_client);
	}
	snprintf(line, sizeof line, "PROXY UNKNOWN %091d\r\n", 0);
	assert_int_equal(strlen(line), PROXY_HEADER_V1_BYTES);
	expect_whole(line, PROXY_HEADER_V1_BYTES);
}

static void a_line_that_is_none_is_refused(void **state)
{
	(void)state;
	static const char *const LINES[] = {
		"GET / HTTP/1.1\r\n",
		"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXYTCP4 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY\r\n",
		"PROXY \r\n",
		"PROXY TCP4\r\n",
		"PROXY TCP4 \r\n",
		"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1x 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 100000\r\n",
		"PROXY TCP4 1.1.1.1\t2.2.2.2 1 2\r\n",
		"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
		"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
		"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n",
		"PROXY TCP4 ::1 ::1 1 2\r\n",
		"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
		"PROXY TCP6 ::1 1 2 3\r\n",
		"PROXY UNKNOWNS\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n",
		"PROXY UNKNOWN x\ny\r\n",
	};
	for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++)
		expect_wrong(LINES[i], strlen(LINES[i]));
	expect_wrong("PROXY UNKNOWN \0\r\n", 17);
}

static void a_line_is_no_longer_than_the_protocol_allows(void **state)
{
	(void)state;
	char line[200];
	int n = snprintf(line, sizeof line, "PROXY UNKNOWN %092d\r\n", 0);
	assert_int_equal(n, PROXY_HEADER_V1_BYTES + 1);
	expect_wrong(line, (size_t)n);
	memset(line, 'x', sizeof line);
	memcpy(line, "PROXY ", 6);
	expect_wrong(line, sizeof line);
	assert_int_equal(read_bytes(line, PROXY_HEADER_V1_BYTES - 2), 0);
	assert_int_equal(header.need, PROXY_HEADER_V1_BYTES);
	assert_true(read_bytes(line, PROXY_HEADER_V1_BYTES - 1) < 0);
	for (size_t at = PROXY_HEADER_V1_BYTES - 4; at < sizeof line; at++) {
		line[at] = '\n';
		expect_wrong(line, sizeof line);
		line[at] = 'x';
	}
}

/* ---- version 2 ---- */

static const uint8_t SIGNATURE[] = { 13, 10, 13, 10, 0, 13, 10, 'Q', 'U', 'I', 'T', 10 };
static const uint8_t IPV4[] = { 203, 0, 113, 7, 192, 0, 2, 1, 5060 >> 8, 5060 & 255, 9000 >> 8, 9000 & 255 };

static uint8_t bytes[70000];
static size_t length;

/* Begins a header. */
static void begin(uint8_t command, uint8_t family, const void *ends, size_t n)
{
	memcpy(bytes, SIGNATURE, sizeof SIGNATURE);
	bytes[12] = command;
	bytes[13] = family;
	if (n)
		memcpy(bytes + HEAD_BYTES, ends, n);
	length = HEAD_BYTES + n;
}

static void add(uint8_t type, const void *value, size_t n)
{
	bytes[length++] = type;
	bytes[length++] = (uint8_t)(n >> 8);
	bytes[length++] = (uint8_t)n;
	if (value)
		memcpy(bytes + length, value, n);
	else
		memset(bytes + length, 'v', n);
	length += n;
}

static void finish(void)
{
	size_t n = length - HEAD_BYTES;
	bytes[14] = (uint8_t)(n >> 8);
	bytes[15] = (uint8_t)n;
}

/* With the checksum of all of it, of which the first field after IPv4's addresses is to be. */
static void seal(void)
{
	finish();
	memset(bytes + FIELDS_AT + 3, 0, 4);
	uint32_t crc = proxy_header_crc(0, bytes, length);
	for (int i = 0; i < 4; i++)
		bytes[FIELDS_AT + 3 + i] = (uint8_t)(crc >> (24 - 8 * i));
}

static void a_binary_header_names_the_client(void **state)
{
	(void)state;
	uint8_t ipv6[36] = {
		0x20, 0x01, 0x0d, 0xb8, [15] = 7, [31] = 1, [32] = 5060 >> 8, [33] = 5060 & 255
	};
	uint8_t path[216] = "/run/client.sock";
	for (uint8_t transport = 1; transport <= 2; transport++) {
		begin(0x21, (uint8_t)(0x10 | transport), IPV4, sizeof IPV4);
		finish();
		expect_whole(bytes, length);
		expect_client("203.0.113.7:5060");
		begin(0x21, (uint8_t)(0x20 | transport), ipv6, sizeof ipv6);
		finish();
		expect_whole(bytes, length);
		expect_client("[2001:db8::7]:5060");
		begin(0x21, (uint8_t)(0x30 | transport), path, sizeof path);
		finish();
		expect_whole(bytes, length);
		expect_client("unix");
	}
}

static void what_is_unspecified_names_nobody(void **state)
{
	(void)state;
	static const uint8_t FAMILIES[] = { 0x00, 0x01, 0x02, 0x10 };
	for (size_t i = 0; i < sizeof FAMILIES; i++) {
		begin(0x21, FAMILIES[i], IPV4, FAMILIES[i] == 0x10 ? sizeof IPV4 : 0);
		add(0xe0, NULL, 3);
		finish();
		expect_whole(bytes, length);
		assert_false(header.has_client);
	}
}

/* Health checks have addresses, fields, or anything. */
static void all_that_comes_with_local_is_skipped(void **state)
{
	(void)state;
	for (unsigned family = 0; family < 256; family += 15) {
		for (size_t n = 0; n <= sizeof IPV4; n += 4) {
			begin(0x20, (uint8_t)family, IPV4, n);
			finish();
			expect_whole(bytes, length);
			assert_false(header.has_client);
		}
	}
	begin(0x20, 0, NULL, 0);
	add(3, "none", 4);
	finish();
	expect_whole(bytes, length);
}

static void fields_are_walked_and_bounded(void **state)
{
	(void)state;
	begin(0x21, 0x11, IPV4, sizeof IPV4);
	add(4, NULL, 0);
	add(1, "h2", 2);
	add(0x20, NULL, 300);
	add(0xff, NULL, 1);
	finish();
	expect_whole(bytes, length);
	expect_client("203.0.113.7:5060");
	for (unsigned cut = 1; cut < 3; cut++) {
		begin(0x21, 0x11, IPV4, sizeof IPV4);
		add(4, NULL, 2);
		length -= cut; /* the value is cut, */
		finish();
		expect_wrong(bytes, length);
		begin(0x21, 0x11, IPV4, sizeof IPV4);
		add(4, NULL, 0);
		length -= cut; /* ... or what stands before it */
		finish();
		expect_wrong(bytes, length);
	}
}

static void a_header_is_no_longer_than_we_keep(void **state)
{
	(void)state;
	begin(0x21, 0x11, IPV4, sizeof IPV4);
	add(4, NULL, PROXY_HEADER_V2_BYTES - FIELDS_AT - 3);
	finish();
	expect_whole(bytes, length);
	begin(0x21, 0x11, IPV4, sizeof IPV4);
	add(4, NULL, PROXY_HEADER_V2_BYTES - FIELDS_AT - 2);
	finish();
	expect_wrong(bytes, HEAD_BYTES);
	begin(0x20, 0, NULL, 0);
	bytes[14] = bytes[15] = 255;
	expect_wrong(bytes, HEAD_BYTES);
}

static void the_checksum_is_that_of_rfc_4960(void **state)
{
	(void)state;
	static const uint8_t ZEROS[32] = { 0 };
	assert_int_equal(proxy_header_crc(0, NULL, 0), 0);
	assert_int_equal(proxy_header_crc(0, (const uint8_t *)"123456789", 9), 0xe3069283);
	assert_int_equal(proxy_header_crc(0, ZEROS, sizeof ZEROS), 0x8a9136aa);
	uint32_t half = proxy_header_crc(0, (const uint8_t *)"1234", 4);
	assert_int_equal(proxy_header_crc(half, (const uint8_t *)"56789", 5), 0xe3069283);
}

/* No bit of it may be another. */
static void a_checksum_is_checked(void **state)
{
	(void)state;
	begin(0x21, 0x11, IPV4, sizeof IPV4);
	add(3, NULL, 4);
	add(1, "http/1.1", 8);
	seal();
	expect_whole(bytes, length);
	expect_client("203.0.113.7:5060");
	for (size_t at = HEAD_BYTES; at < length; at++) {
		if (at == FIELDS_AT || at == FIELDS_AT + 8 || at == FIELDS_AT + 9)
			continue; /* a field's type or length: it is wrong in another way, or is not checked */
		bytes[at] ^= 0x40;
		assert_true(read_bytes(bytes, length) < 0);
		bytes[at] ^= 0x40;
	}
	assert_int_equal(read_bytes(bytes, length), length);
}

static void a_checksum_is_one_of_four_bytes(void **state)
{
	(void)state;
	begin(0x21, 0x11, IPV4, sizeof IPV4);
	add(3, NULL, 5);
	finish();
	expect_wrong(bytes, length);
	begin(0x21, 0x11, IPV4, sizeof IPV4);
	add(3, NULL, 4);
	add(3, NULL, 4);
	seal();
	expect_wrong(bytes, length);
}

static void a_binary_header_that_is_none_is_refused(void **state)
{
	(void)state;
	for (unsigned at = 0; at < sizeof SIGNATURE; at++) {
		begin(0x21, 0x11, IPV4, sizeof IPV4);
		finish();
		bytes[at] ^= 1;
		expect_wrong(bytes, length);
		assert_false(proxy_header_begins(bytes, length));
	}
	for (unsigned command = 0; command < 256; command++) {
		begin((uint8_t)command, 0x11, IPV4, sizeof IPV4);
		finish();
		if (command != 0x20 && command != 0x21)
			expect_wrong(bytes, length);
		else
			expect_whole(bytes, length);
	}
	for (unsigned family = 0; family < 256; family++) {
		uint8_t ends[216] = { 0 };
		static const size_t ENDS[] = { 0, 12, 36, 216 };
		bool is_one = family >> 4 < 4 && (family & 15) < 3;
		size_t n = is_one ? ENDS[family >> 4] : 216;
		begin(0x21, (uint8_t)family, ends, n);
		finish();
		if (is_one)
			expect_whole(bytes, length);
		else
			expect_wrong(bytes, length);
		if (!is_one || !n)
			continue;
		length--; /* its addresses are not all there */
		finish();
		expect_wrong(bytes, length);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_names_the_client),
		cmocka_unit_test(an_unknown_client_is_none),
		cmocka_unit_test(a_line_that_is_none_is_refused),
		cmocka_unit_test(a_line_is_no_longer_than_the_protocol_allows),
		cmocka_unit_test(a_binary_header_names_the_client),
		cmocka_unit_test(what_is_unspecified_names_nobody),
		cmocka_unit_test(all_that_comes_with_local_is_skipped),
		cmocka_unit_test(fields_are_walked_and_bounded),
		cmocka_unit_test(a_header_is_no_longer_than_we_keep),
		cmocka_unit_test(the_checksum_is_that_of_rfc_4960),
		cmocka_unit_test(a_checksum_is_checked),
		cmocka_unit_test(a_checksum_is_one_of_four_bytes),
		cmocka_unit_test(a_binary_header_that_is_none_is_refused),
	};
	return cmocka_run_group_tests_name("proxy_header", tests, NULL, NULL);
}
