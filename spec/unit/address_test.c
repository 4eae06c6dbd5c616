#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

static struct sockaddr_storage v4(const char *host, uint16_t port)
{
	struct sockaddr_storage address = { 0 };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	assert_int_equal(inet_pton(AF_INET, host, &in.sin_addr), 1);
	memcpy(&address, &in, sizeof in);
	return address;
}

static struct sockaddr_storage v6(const char *host, uint16_t port, uint32_t scope)
{
	struct sockaddr_storage address = { 0 };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6,
				    .sin6_port = htons(port),
				    .sin6_scope_id = scope };
	assert_int_equal(inet_pton(AF_INET6, host, &in6.sin6_addr), 1);
	memcpy(&address, &in6, sizeof in6);
	return address;
}

static struct sockaddr_storage un(const char *path, size_t n)
{
	struct sockaddr_storage address = { 0 };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	memcpy(un.sun_path, path, n);
	memcpy(&address, &un, sizeof un);
	return address;
}

static void expect(const char *wanted, struct sockaddr_storage address)
{
	char text[ADDRESS_TEXT_BYTES];
	assert_string_equal(address_text((struct sockaddr *)&address, text, sizeof text), wanted);
}

static void all_kinds_are_written_as_people_do(void **state)
{
	(void)state;
	expect("127.0.0.1:5060", v4("127.0.0.1", 5060));
	expect("0.0.0.0:0", v4("0.0.0.0", 0));
	expect("255.255.255.255:65535", v4("255.255.255.255", 65535));
	expect("[::]:9000", v6("::", 9000, 0));
	expect("[2001:db8::1]:5060", v6("2001:db8::1", 5060, 0));
	expect("10.0.0.7:5060", v6("::ffff:10.0.0.7", 5060, 0));
	expect("unix", un("", 0));
	expect("unix", (struct sockaddr_storage){ 0 });
}

static void an_address_of_a_link_has_the_link(void **state)
{
	(void)state;
	unsigned lo = if_nametoindex("lo");
	if (!lo)
		skip();
	expect("[fe80::1%lo]:5060", v6("fe80::1", 5060, lo));
	expect("[fe80::1%4294967295]:5060", v6("fe80::1", 5060, UINT32_MAX)); /* it has gone */
	expect("[fe80::1]:5060", v6("fe80::1", 5060, 0));
}

static void the_longest_has_room(void **state)
{
	(void)state;
	char text[ADDRESS_TEXT_BYTES];
	/* INET6_ADDRSTRLEN is for ::ffff:255.255.255.255 in full, with its terminator. */
	assert_true(sizeof text >= INET6_ADDRSTRLEN + IF_NAMESIZE + sizeof "[%]:65535");
	struct sockaddr_storage address = v6("ff02:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535, UINT32_MAX);
	assert_string_equal(address_text((struct sockaddr *)&address, text, sizeof text),
			    "[ff02:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535");
}

static void expect_path(const char *wanted, struct sockaddr_storage address)
{
	char path[ADDRESS_PATH_BYTES];
	assert_string_equal(address_path(&address, path), wanted);
}

static void paths_may_fill_their_field(void **state)
{
	(void)state;
	char full[sizeof((struct sockaddr_un *)0)->sun_path + 1];
	memset(full, 'p', sizeof full - 1);
	full[sizeof full - 1] = '\0';
	expect_path("/run/app.sock", un("/run/app.sock", 14));
	expect_path(full, un(full, sizeof full - 1));
	expect_path("@name", un("\0name", 5));
	expect_path("", un("", 0));
	expect_path("", v4("127.0.0.1", 1));
}

static void a_mapped_address_is_one_of_ipv4(void **state)
{
	(void)state;
	static const char *const MAPPED[] = { "::ffff:10.0.0.7", "::ffff:a00:7" };
	struct sockaddr_storage plain, wanted = v4("10.0.0.7", 80), other;
	for (int i = 0; i < 2; i++) {
		struct sockaddr_storage mapped = v6(MAPPED[i], 80, 0);
		assert_int_equal(address_plain((struct sockaddr *)&mapped, &plain),
				 sizeof(struct sockaddr_in));
		assert_memory_equal(&plain, &wanted, sizeof plain);
	}
	other = v6("::10.0.0.7", 80, 0);
	assert_int_equal(address_plain((struct sockaddr *)&other, &plain), sizeof(struct sockaddr_in6));
	assert_memory_equal(&plain, &other, sizeof plain);
	assert_int_equal(address_plain((struct sockaddr *)&wanted, &plain), sizeof(struct sockaddr_in));
	assert_memory_equal(&plain, &wanted, sizeof plain);
}

static bool same(struct sockaddr_storage a, struct sockaddr_storage b)
{
	return address_same_host(&a, &b);
}

static void a_host_is_one_of_its_link(void **state)
{
	(void)state;
	assert_true(same(v4("10.0.0.7", 1), v4("10.0.0.7", 2)));
	assert_false(same(v4("10.0.0.7", 1), v4("10.0.0.8", 1)));
	assert_true(same(v6("fe80::1", 1, 2), v6("fe80::1", 2, 2)));
	assert_false(same(v6("fe80::1", 1, 2), v6("fe80::1", 1, 3)));
	assert_false(same(v6("fe80::1", 1, 2), v6("fe80::2", 1, 2)));
	assert_false(same(v6("::", 1, 0), v4("0.0.0.0", 1)));
	assert_false(same(un("/a", 3), un("/a", 3)));
}

static void expect_read(const char *from, uint16_t port, const char *expected)
{
	char text[ADDRESS_TEXT_BYTES];
	union address address;
	assert_true(address_read(from, &address));
	address_set_port(&address, port);
	assert_string_equal(address_text(&address.any, text, sizeof text), expected);
	assert_int_equal(address_bytes(&address), address.any.sa_family == AF_INET
						      ? sizeof(struct sockaddr_in)
						      : sizeof(struct sockaddr_in6));
}

static void reads_what_people_write(void **state)
{
	static const char *const NONE[] = { "",           "localhost",    "127.0.0",
					    "127.0.0.1.", "127.0.0.1%lo", "::1%",
					    "[::1]",      "::1%nolink",   "::1%4294967296",
					    "12345::" };
	union address address;
	char longest[300];
	(void)state;
	expect_read("127.0.0.1", 80, "127.0.0.1:80");
	expect_read("::1", 80, "[::1]:80");
	expect_read("fe80::1%lo", 80, "[fe80::1%lo]:80");
	expect_read("fe80::1%1", 0, "[fe80::1%lo]:0");
	expect_read("::ffff:10.0.0.7", 80, "10.0.0.7:80");
	for (size_t i = 0; i < sizeof NONE / sizeof *NONE; i++)
		assert_false(address_read(NONE[i], &address));
	memset(longest, '1', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	assert_false(address_read(longest, &address));
}

static void a_list_has_none_twice_and_so_many_at_most(void **state)
{
	struct addresses addresses = { .count = 0 };
	union address address;
	(void)state;
	for (int i = 0; i < ADDRESSES_MAX; i++) { /* each of them twice */
		assert_true(address_read(i % 2 ? "::1" : "127.0.0.1", &address));
		address_set_port(&address, (uint16_t)(i / 4));
		addresses_add(&addresses, &address);
	}
	assert_int_equal(addresses.count, ADDRESSES_MAX / 2);
	for (int i = 0; i < ADDRESSES_MAX; i++) {
		address_set_port(&address, (uint16_t)(1000 + i));
		addresses_add(&addresses, &address);
	}
	assert_int_equal(addresses.count, ADDRESSES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_kinds_are_written_as_people_do),
		cmocka_unit_test(an_address_of_a_link_has_the_link),
		cmocka_unit_test(the_longest_has_room),
		cmocka_unit_test(paths_may_fill_their_field),
		cmocka_unit_test(a_mapped_address_is_one_of_ipv4),
		cmocka_unit_test(a_host_is_one_of_its_link),
		cmocka_unit_test(reads_what_people_write),
		cmocka_unit_test(a_list_has_none_twice_and_so_many_at_most),
	};
	return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
