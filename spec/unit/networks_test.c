#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/networks.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

static struct sockaddr_in6 peer_of(const char *text)
{
	struct sockaddr_in6 peer = { .sin6_family = AF_INET6 };
	char mapped[INET6_ADDRSTRLEN] = "::ffff:";
	if (inet_pton(AF_INET6, text, &peer.sin6_addr) != 1)
		assert_int_equal(inet_pton(AF_INET6, strcat(mapped, text), &peer.sin6_addr), 1);
	return peer;
}

static bool has(const char *network, const char *address)
{
	struct network one;
	struct sockaddr_in6 peer = peer_of(address);
	assert_true(network_read(network, &one));
	return networks_have(&(struct networks){ .list = &one, .count = 1 }, &peer);
}

static void a_host_is_itself(void **state)
{
	(void)state;
	assert_true(has("10.0.0.7", "10.0.0.7"));
	assert_false(has("10.0.0.7", "10.0.0.8"));
	assert_true(has("2001:db8::1", "2001:db8::1"));
	assert_false(has("2001:db8::1", "2001:db8::2"));
}

static void a_network_has_what_its_prefix_begins(void **state)
{
	(void)state;
	assert_true(has("10.0.0.0/8", "10.255.1.2"));
	assert_false(has("10.0.0.0/8", "11.0.0.0"));
	assert_true(has("10.1.2.3/8", "10.255.1.2"));
	assert_true(has("192.0.2.128/25", "192.0.2.255"));
	assert_false(has("192.0.2.128/25", "192.0.2.127"));
	assert_true(has("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(has("2001:db8::/33", "2001:db8:8000::1"));
}

static void families_do_not_mix(void **state)
{
	(void)state;
	assert_true(has("0.0.0.0/0", "10.0.0.7"));
	assert_false(has("0.0.0.0/0", "::1"));
	assert_true(has("::/0", "::1"));
	assert_false(has("::/0", "10.0.0.7"));
}

static void unix_sockets_are_named(void **state)
{
	(void)state;
	struct network all;
	struct sockaddr_in6 local = { .sin6_family = AF_UNIX };
	assert_true(network_read("::/0", &all));
	assert_false(networks_have(&(struct networks){ .list = &all, .count = 1 }, &local));
	assert_true(networks_have(&(struct networks){ .has_unix = true }, &local));
}

static void anything_else_is_none(void **state)
{
	(void)state;
	struct network one;
	static const char *const TEXTS[] = { "",
					     "x",
					     "10.0.0",
					     "10.0.0.0/",
					     "10.0.0.0/33",
					     "10.0.0.0/-1",
					     "10.0.0.0/ 8",
					     "10.0.0.0/8x",
					     "::1/129",
					     "::1%lo",
					     "unix",
					     "010.0.0.1" };
	for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
		assert_false(network_read(TEXTS[i], &one));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_is_itself),
		cmocka_unit_test(a_network_has_what_its_prefix_begins),
		cmocka_unit_test(families_do_not_mix),
		cmocka_unit_test(unix_sockets_are_named),
		cmocka_unit_test(anything_else_is_none),
	};
	return cmocka_run_group_tests_name("networks", tests, NULL, NULL);
}
